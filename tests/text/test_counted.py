from vtcav_ray.text.counted import are


def test_the_noun_and_the_verb_fit_the_count() -> None:
    assert [are(count, "file") for count in (0, 1, 2, 1200)] == [
        "0 files are",
        "1 file is",
        "2 files are",
        "1,200 files are",
    ]
    assert are(1, "class", "classes") == "1 class is"
    assert are(3, "class", "classes") == "3 classes are"
