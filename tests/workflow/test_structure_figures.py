"""The figures of the feature space are a target of their own."""


def test_they_are_drawn_where_asked_for_and_nowhere_else(project):
    project.configure(backends=["pyg"], structure={"epochs": [2]})
    assert "structure_figure" not in project.jobs()
    before = project.records()
    project.run("structure_figures")
    assert project.records() == before  # what is stored is drawn, not trained again
    folder = project.folder / "results/figures/structure"
    for dataset in ("synthetic", "digits"):
        assert (folder / f"{dataset}-pyg-gat.png").stat().st_size > 10_000
        drawn = (folder / f"{dataset}-pyg-gat.svg").read_text()
        assert all(text in drawn for text in ("student with lsp", "student alone (supervised)", "after epoch 2"))
        assert "not exactly the stored run" not in drawn
    assert "Nothing to be done" in project.run("structure_figures")


def test_methods_that_no_pair_has_are_named(project):
    project.configure(methods={"supervised": {}, "at": {}})
    assert "structure.methods: no pair is run with all of: lsp, supervised" in project.run(
        "structure_figures", "-n", succeeds=False
    )
