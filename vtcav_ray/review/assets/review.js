// The review page: one group at a time, reviewed with the keyboard. Data is inserted as text, never as HTML.
"use strict";

(() => {
  const at = (id) => document.getElementById(id);
  const words = { concept: "Concept", class: "Class examples", random: "Random clips" };
  const plural = { concept: "Concepts", class: "Classes", random: "Random" };
  const signs = { accept: "✓", reject: "✗", "": "·" };
  const [ID, VIDEO, OBJECT, MOTION, FIRST, LAST, HEIGHT, WIDTH] = [0, 1, 2, 3, 4, 5, 6, 7];
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let state, current = 0, place = 0, playing = !still, quiet;
  let clipVerdicts = new Map(), nameVerdicts = new Map();
  const nameKey = (set, name) => `${set}\n${name}`;
  let groupOf = new Map(); // clip ID -> its group

  const many = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (name.startsWith("on")) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  // Decisions -----------------------------------------------------------------------------------------------------

  const ofName = (group) => nameVerdicts.get(nameKey(group.set, group.name)) ?? "";
  const ofClip = (group, clip) => clipVerdicts.get(clip[ID]) ?? ofName(group);

  function note(set, name, clip, verdict) {
    const [map, key] = clip ? [clipVerdicts, clip] : [nameVerdicts, nameKey(set, name)];
    if (verdict) map.set(key, verdict);
    else map.delete(key);
  }

  function learn(rows) {
    clipVerdicts = new Map();
    nameVerdicts = new Map();
    for (const row of rows) note(...row);
  }

  function counts(group) {
    const found = { accept: 0, reject: 0, "": 0 };
    for (const clip of group.clips) found[ofClip(group, clip)]++;
    return found;
  }

  // A group is decided when all of its clips are.
  function verdictOf(group) {
    const found = counts(group);
    if (found[""]) return "";
    return found.accept ? "accept" : "reject";
  }

  // Requests ------------------------------------------------------------------------------------------------------

  let line = Promise.resolve(); // one request at a time, in the order of the keys pressed

  function send(path, body, done) {
    line = line.then(async () => {
      try {
        const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
        if (!answer.ok) throw new Error(await answer.text());
        const found = await answer.json();
        if (found.decisions) learn(found.decisions);
        for (const row of found.changes ?? []) note(...row);
        state.undo = found.undo;
        problem("");
        done?.(found);
      } catch (error) {
        problem(error instanceof TypeError ? "The server does not answer. Is `vtcav review` still running? The last decision is NOT saved." : `Not saved: ${error.message}`);
      }
      refresh();
    });
    return line;
  }

  function problem(text) {
    at("problem").textContent = text;
    at("problem").hidden = !text;
  }

  function say(text) {
    at("said").textContent = text;
    clearTimeout(quiet);
    quiet = setTimeout(() => { at("said").textContent = ""; }, 2500);
  }

  const change = (group, clip, verdict) => ({ set: group.set, name: group.name, clip_id: clip ? clip[ID] : "", verdict });

  function decideClip(verdict) {
    const group = state.groups[current], clip = group?.clips[place];
    if (!clip) return;
    send("/api/decide", { changes: [change(group, clip, verdict)] });
    focusClip(place + (verdict ? 1 : 0)); // also returns the focus from a pressed button
  }

  function rejectEverywhere() {
    const group = state.groups[current], clip = group?.clips[place];
    if (!clip) return;
    const others = state.siblings[clip[ID]] ?? [];
    const changes = [change(group, clip, "reject"), ...others.map((id) => change(groupOf.get(id), [id], "reject"))];
    send("/api/decide", { changes }, () => say(others.length ? `Rejected in ${changes.length} kinds` : "Rejected; this object is in no other kind"));
    if (place < group.clips.length - 1) focusClip(place + 1);
  }

  // Accepting a group keeps clips that were rejected one by one; rejecting a group rejects all of its clips.
  function decideAll(verdict) {
    const group = state.groups[current];
    if (!group) return;
    const own = verdict === "reject" ? "accept" : "";
    const changes = [change(group, null, verdict), ...group.clips.filter((c) => own && clipVerdicts.get(c[ID]) === own).map((c) => change(group, c, null))];
    send("/api/decide", { changes }, () => say(`${group.name}: ${verdict}ed`));
  }

  const undo = () => send("/api/undo", {}, (found) => say(found.undone ? `Undone: ${found.undone}` : "Nothing to undo"));

  // Drawing --------------------------------------------------------------------------------------------------------

  function drawGroups() {
    const nav = at("groups"), choose = at("choose");
    let before = "", part;
    state.groups.forEach((group, i) => {
      for (const clip of group.clips) groupOf.set(clip[ID], group);
      if (group.set !== before) {
        nav.append(element("h2", {}, plural[group.set]));
        choose.append(part = element("optgroup", { label: plural[group.set] }));
        before = group.set;
      }
      nav.append(element("button", { type: "button", "data-group": i, onclick: () => show(i) }, element("span", { class: "sign" }), element("span", {}, group.name), element("span", { class: "count" })));
      part.append(element("option", { value: i }, group.name));
    });
    choose.onchange = () => show(Number(choose.value));
  }

  function picture(group, clip) {
    const box = element("span", { class: "picture" });
    const canvas = element("canvas", { "aria-hidden": "true" });
    const scale = Math.min(1, 176 / Math.max(clip[HEIGHT], clip[WIDTH]));
    const image = element("img", {
      width: Math.round(clip[WIDTH] * scale), height: Math.round(clip[HEIGHT] * scale), loading: "lazy", decoding: "async", alt: "",
      onload: () => { // an <img> can't be paused, so its first frame is drawn to show while paused
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        canvas.getContext("2d").drawImage(image, 0, 0);
      },
      onerror: async () => {
        const answer = await fetch(image.src);
        if (!answer.ok) box.replaceChildren(element("span", { class: "broken" }, await answer.text()));
      },
    });
    image.src = `/preview/${encodeURIComponent(clip[ID])}?key=${state.key}`;
    box.append(image, canvas);
    return box;
  }

  function tile(group, clip, i) {
    const what = [clip[OBJECT], clip[MOTION]].filter(Boolean).join(" ");
    const made = element("button", { type: "button", class: "clip", tabindex: "-1", "data-clip": clip[ID], onclick: () => focusClip(i), onfocus: () => { place = i; rove(); } },
      picture(group, clip),
      element("span", { class: "caption" }, element("b", {}, `${i + 1}`), what ? ` ${what}` : "", element("span", {}, clip[VIDEO]), element("span", {}, clip[FIRST] === clip[LAST] ? `frame ${clip[FIRST]}` : `frames ${clip[FIRST]}–${clip[LAST]}`)));
    made.ondblclick = () => { place = i; decideClip(ofClip(group, clip) === "reject" ? "accept" : "reject"); };
    return made;
  }

  function show(i, { focus = true } = {}) {
    current = Math.max(0, Math.min(i, state.groups.length - 1));
    place = 0;
    const group = state.groups[current];
    at("eyebrow").textContent = `${words[group.set]} · ${group.kind}`;
    at("name").textContent = group.name;
    at("choose").value = current;
    at("wall").replaceChildren(...group.clips.map((clip, n) => tile(group, clip, n)));
    at("previous").disabled = current === 0;
    at("next").disabled = current === state.groups.length - 1;
    history.replaceState(null, "", `#${encodeURIComponent(`${group.set}:${group.name}`)}`);
    refresh();
    scrollTo(0, 0);
    if (focus) focusClip(0);
    at("groups").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  function refresh() {
    const group = state.groups[current];
    const found = counts(group), videos = new Set(group.clips.map((c) => c[VIDEO])).size;
    at("about").textContent = `${many(group.clips.length, "clip")} of ${many(videos, "source video")}: ${found.accept} accepted, ${found.reject} rejected, ${found[""]} not decided`;
    [...at("wall").children].forEach((made, i) => {
      const verdict = ofClip(group, group.clips[i]);
      made.classList.toggle("accept", verdict === "accept");
      made.classList.toggle("reject", verdict === "reject");
      let badge = made.querySelector(".verdict");
      if (!verdict) badge?.remove();
      else {
        if (!badge) made.querySelector(".picture").append(badge = element("span", { class: "verdict" }));
        badge.textContent = `${signs[verdict]} ${verdict}ed`;
      }
    });
    let decided = 0;
    for (const button of at("groups").querySelectorAll("button")) {
      const one = state.groups[button.dataset.group], verdict = verdictOf(one), n = counts(one);
      decided += verdict ? 1 : 0;
      button.firstChild.textContent = signs[verdict];
      button.firstChild.className = `sign ${verdict}`;
      button.firstChild.title = verdict ? `${verdict}ed` : "not decided";
      button.lastChild.textContent = n.reject ? `${one.clips.length - n.reject} of ${one.clips.length}` : `${one.clips.length}`;
      if (Number(button.dataset.group) === current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
    at("progress").textContent = `${decided} of ${state.groups.length} decided`;
    at("bar").style.width = `${(100 * decided) / state.groups.length}%`;
    at("undo").disabled = !state.undo;
    rove();
  }

  function rove() {
    [...at("wall").children].forEach((made, i) => made.setAttribute("tabindex", i === place ? "0" : "-1"));
  }

  function focusClip(i) {
    place = Math.max(0, Math.min(i, at("wall").children.length - 1));
    at("wall").children[place]?.focus();
    rove();
  }

  function play(value) {
    playing = value;
    document.documentElement.classList.toggle("paused", !playing);
    at("play").lastChild.textContent = playing ? " Pause" : " Play";
  }

  // Keys -----------------------------------------------------------------------------------------------------------

  const columns = () => getComputedStyle(at("wall")).gridTemplateColumns.split(" ").length;

  const keys = {
    a: () => decideClip("accept"), r: () => decideClip("reject"), c: () => decideClip(null), x: rejectEverywhere,
    A: () => decideAll("accept"), R: () => decideAll("reject"), u: undo, U: undo,
    n: () => show(current + 1), p: () => show(current - 1), " ": () => play(!playing), "?": () => at("keys").showModal(),
    ArrowRight: () => focusClip(place + 1), ArrowLeft: () => focusClip(place - 1),
    ArrowDown: () => focusClip(place + columns()), ArrowUp: () => focusClip(place - columns()),
    Home: () => focusClip(0), End: () => focusClip(Infinity),
  };

  document.addEventListener("keydown", (event) => {
    if (!state || event.ctrlKey || event.metaKey || event.altKey || at("keys").open || event.target.closest("select")) return;
    if (event.key === " " && event.target.closest("button:not(.clip)")) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  at("undo").onclick = undo;
  at("help").onclick = keys["?"];
  at("accept").onclick = keys.a;
  at("reject").onclick = keys.r;
  at("accept-all").onclick = keys.A;
  at("reject-all").onclick = keys.R;
  at("play").onclick = keys[" "];
  at("next").onclick = keys.n;
  at("previous").onclick = keys.p;

  (async () => {
    const answer = await fetch("/api/state");
    if (!answer.ok) return problem(await answer.text());
    state = await answer.json();
    if (!state.groups.length) return problem("This run has no clips.");
    learn(state.decisions);
    drawGroups();
    play(playing);
    const wanted = decodeURIComponent(location.hash.slice(1));
    const first = state.groups.findIndex((g) => `${g.set}:${g.name}` === wanted);
    const open = state.groups.findIndex((g) => !verdictOf(g));
    show(first >= 0 ? first : Math.max(open, 0));
    document.documentElement.dataset.ready = "";
  })();
})();
