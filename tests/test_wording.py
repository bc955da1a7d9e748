"""How reasons, names and numbers are written."""

import pytest

from distillbench.wording import backend_label, backend_order, reason_in_words

ELSEWHERE = ", whose text is in runs.csv"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x32 and 16x7)", "RuntimeError" + ELSEWHERE),
        (
            "out of memory: [enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 1600000000000 bytes. Error code 12 (Cannot allocate memory)",
            "out of memory",
        ),
        (
            "out of memory: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.72 GiB "
            "of which 3.12 GiB is free. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF",
            "out of memory",
        ),
        ("NotImplementedError: Could not run 'aten::x' from the 'CUDA' backend.", "NotImplementedError" + ELSEWHERE),
        ("loss is\n NaN", "loss is NaN"),
        ("ValueError: lsp: layer 3 of 2", "ValueError: lsp: layer 3 of 2"),
        ("its teacher has the status diverged: loss is NaN", "its teacher has the status diverged: loss is NaN"),
        ("RuntimeError", "RuntimeError"),
        ("", ""),
        ("x" * 200, "x" * 157 + "…"),
    ],
)  # fmt: skip
def test_reasons_are_words_and_not_what_torch_says_of_sizes(raw, said):
    assert reason_in_words(raw) == said


def test_libraries_that_are_one_row_are_named_in_their_order():
    assert [backend_label(name) for name in ("pyg", "pyg+dgl", "csr+mine")] == ["PyG", "PyG, DGL", "CSR, mine"]
    assert sorted(["csr", "dgl+csr", "mine", "pyg"], key=backend_order) == ["pyg", "dgl+csr", "csr", "mine"]
