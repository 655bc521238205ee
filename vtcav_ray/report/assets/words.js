// Number formats (the same as in vtcav_ray/pages/wording.py), and the meaning of each column of the scores table.

const words = (() => {
  const none = "–";

  function signed(value) {
    if (!Number.isFinite(value)) return none;
    const size = Math.abs(value);
    if (size === 0) return "0.00";
    if (size < 0.00001) return (value < 0 ? "−" : "+") + size.toExponential(1).replace("-", "−");
    const decimals = size >= 1000 ? 0 : size >= 0.095 ? 2 : Math.min(6, 1 - Math.floor(Math.log10(size)));
    const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
    return (value < 0 ? "−" : "+") + size.toLocaleString("en", digits);
  }

  // A sign and two decimals, or three for small values, for a cell of the matrix. A smaller value is called small, not 0.
  function short(value) {
    if (!Number.isFinite(value)) return none;
    const size = Math.abs(value);
    if (size < 0.0005) return size === 0 ? "0.00" : value < 0 ? "> −0.001" : "< 0.001";
    return (value < 0 ? "−" : "+") + size.toFixed(size >= 99.5 ? 0 : size >= 0.0095 ? 2 : 3);
  }
  // Five characters at most, for a cell of 40 pixels.
  const narrow = (value) => {
    if (!Number.isFinite(value)) return none;
    const size = Math.abs(value);
    const digits = size.toFixed(size >= 9.95 ? 0 : size >= 0.995 ? 1 : 2);
    return Number(digits) === 0 ? (size === 0 ? "0" : value < 0 ? ">−.01" : "<.01") : (value < 0 ? "−" : "+") + (size >= 1e4 ? size.toExponential(0).replace("+", "") : digits);
  };
  const fixed = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−") : none);
  const whole = (value) => (Number.isFinite(value) ? Math.round(value).toLocaleString("en") : none);

  function probability(value) {
    if (!Number.isFinite(value)) return none;
    return value < 0.001 ? "< 0.001" : value.toFixed(value < 0.1 ? 3 : 2);
  }

  const percent = (value) => (Number.isFinite(value) ? `${(100 * value).toFixed(Math.abs(value) < 0.0995 ? 1 : 0)}\u00a0%`.replace("-", "−") : none);

  const yesNo = (value) => (value === 1 ? "yes" : value === 0 ? "no" : none);

  function general(value) {
    if (!Number.isFinite(value)) return none;
    return Number.isInteger(value) ? whole(value) : Number(value.toPrecision(4)).toString().replace("-", "−");
  }

  // Column -> [heading, format, meaning]. A column that is not listed is shown under its own name.
  const columns = {
    effect: facts.effect === "patch"
      ? ["Patch effect", signed, "How far the class's logit moves when the activation of a concept's clip, instead of a random one's, is put into the reference clips. The headline. In logits."]
      : ["Concept effect", signed, "How far the class's logit moves, to first order, when the whole activation moves from random clips to the concept's. The headline. In logits, which compare across layers."],
    ci_low: ["… interval, low end", signed, "95 % bootstrap interval of the effect: the class's videos and the runs are both resampled."],
    ci_high: ["… interval, high end", signed, "The interval's other end."],
    null_sd: ["… spread of its null", signed, "Standard deviation of the effect when random clips replace the concept's clips. In logits."],
    share_of_margin: ["… of the class's margin", percent, "The effect over the margin: the median distance of the class's logit to the runner-up, over its examples. –: the margin is not above 0."],
    gain: ["Gain of the layer", (v) => general(v), "The effect contains it: the number of places that the layer's activation is averaged over. Without it, sizes at different layers don't compare."],
    effect_patch: ["Finite change (patch)", signed, "Change of the logit if activations of the concept's clips replace those of reference clips, minus the same for random clips. In logits. The effect is its first-order prediction."],
    q_patch: ["… q", probability, "p of the finite change, corrected for all patched comparisons."],
    z: ["… in null spreads (z)", (v) => signed(v), "The effect divided by that spread."],
    p: ["… p", probability, "Permutation test over source videos: twice the smaller tail."],
    p_symmetric: ["… p by size alone", probability, "The same test by the size of t. Read it where the ratio of spreads is above 2."],
    q: ["… q", probability, "p corrected for all comparisons of the run. Below α, with the interval beyond the smallest effect of interest: significant."],
    class_margin: ["Class's margin", signed, "How far the clips of other classes are from the class's own, measured as the effect is. Effect over margin compares layers. In logits."],
    min_effect: ["Smallest effect of interest", signed, "A share of the margin: an effect is called only if its interval lies beyond, and has no effect only if it lies inside. In logits."],
    significant: ["Significant", yesNo, "q of the effect is below α, and its interval lies beyond ± the smallest effect of interest."],
    negligible: ["No effect", yesNo, "The interval lies inside ± the smallest effect of interest."],
    spread_ratio: ["Ratio of spreads", (v) => fixed(v), "Standard deviations of the two sides, the larger over the smaller. Above 2, p can be too small."],
    effect_within: ["Beyond the class itself", signed, "Part of the effect between clips of the SAME class, with the concept and without. The effect above compares clips of any class. In logits."],
    p_within: ["… p", probability, "Permutation test of that part: videos are exchanged within their classes."],
    q_within: ["… q", probability, "That p, corrected for all comparisons of the run."],
    between_share: ["Share of the classes themselves", (v) => fixed(v), "Share of the effect that goes with the classes of the clips. Near 1: the concept's clips raise the logit as any clips of their classes do."],
    tcav_score: ["TCAV score", (v) => fixed(v, 3), "Share of the class's clips whose logit rises along the concept's direction; mean over the R CAVs."],
    tcav_ci_low: ["… interval, low end", (v) => fixed(v, 3), "95 % bootstrap interval of the TCAV score."],
    tcav_ci_high: ["… interval, high end", (v) => fixed(v, 3), "The interval's other end."],
    tcav_null_mean: ["… of random against random", (v) => fixed(v, 3), "Mean TCAV score of CAVs that separate random sets from random sets."],
    tcav_null_sd: ["… spread of that", (v) => fixed(v, 3), "Standard deviation of those scores. Wide: a sign count can't decide."],
    tcav_effect: ["… above its null", signed, "TCAV score minus the null's mean."],
    tcav_p: ["… p", probability, "Two-sided p of the TCAV score against random-against-random scores."],
    tcav_q: ["… q", probability, "The p of the TCAV score, corrected for all comparisons of the run."],
    tcav_magnitude: ["Mean sensitivity", (v) => general(v), "Mean directional derivative of the logit along the CAV. In logits per unit of the activation."],
    tcav_smooth: ["Smooth score", (v) => fixed(v, 3), "Mean sigmoid of the scaled sensitivity: like the TCAV score, without its jump at zero."],
    learnable: ["Learnable", yesNo, "The held-out accuracy is above the random sets' own. It decides nothing."],
    held_out_accuracy: ["Held-out accuracy", (v) => fixed(v, 3), "Balanced accuracy of the CAVs on source videos that they were not trained on."],
    null_accuracy: ["… of random sets", (v) => fixed(v, 3), "95th percentile of the accuracy with which random sets are separated from one another."],
    stability: ["Stability", (v) => fixed(v, 3), "Mean cosine between the R CAVs: 1 when every random set gives the same direction."],
    collinearity: ["Gradients' collinearity", (v) => fixed(v, 3), "Mean cosine between the class's gradients at this layer. Near 1, all clips share one sign, and a sign count jumps between 0 and 1."],
    degenerate: ["Degenerate", yesNo, "The gradient is the same for every clip: the sign count says nothing."],
    decided_by: ["Decided by", String, "Which figures can be read here."],
    n: ["Class videos (n)", whole, "Source videos of the class whose gradients were used."],
    n_concept: ["Concept videos", whole, "Source videos that gave clips of the concept."],
    n_random: ["Random videos", whole, "Source videos on the other side."],
    R: ["CAVs (R)", whole, "One per random set."],
    model: ["Model", String, "Checkpoint and digest."],
    note: ["Note", (v) => v || none, "Why the comparison is marked."],
  };

  const columnGroups = [
    ["The effect", ["effect", "ci_low", "ci_high", "share_of_margin", "effect_patch", "q_patch", "z", "p", "q", "significant", "negligible", "min_effect", "class_margin", "null_sd", "p_symmetric", "spread_ratio", "gain"]],
    ["Beyond the class itself", ["effect_within", "p_within", "q_within", "between_share"]],
    ["The TCAV score (sign count)", ["tcav_score", "tcav_ci_low", "tcav_ci_high", "tcav_null_mean", "tcav_null_sd", "tcav_effect", "tcav_p", "tcav_q", "tcav_smooth", "tcav_magnitude"]],
    ["The concept's direction", ["held_out_accuracy", "null_accuracy", "learnable", "stability"]],
    ["How to read it", ["decided_by", "degenerate", "collinearity", "note"]],
    ["Sample sizes", ["n", "n_concept", "n_random", "R", "model"]],
  ];

  return { signed, short, narrow, fixed, whole, percent, probability, general, columns, columnGroups };
})();
