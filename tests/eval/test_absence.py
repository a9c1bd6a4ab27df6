"""The study of absent objects counts as it says."""

from eval.studies.absence import Row, format_thresholds, rank


def test_thresholds_by_hand():
    rows = {
        "one": [Row(0, 0.1, 0.6), Row(0, 0.1, 0.95), Row(1, 0.0, 0.2), Row(1, 0.1, 0.75)],
        "two": [Row(0, 0.1, 1.0), Row(0, 0.1, 1.0), Row(2, 0.0, 0.05), Row(2, 0.0, 0.4)],
    }
    lines = [line.split(" | ") for line in format_thresholds(rows).splitlines()[2:]]
    table = {float(first.strip("| ")): cells for first, *cells in lines}
    assert table[0.5] == ["0 %", "50 %", "100 % |"]
    assert table[0.8] == ["25 %", "100 %", "100 % |"]
    assert table[0.99] == ["50 %", "100 %", "100 % |"]
    assert "–" in format_thresholds({"two": rows["two"]})
    assert rank(rows["one"], 1) == 0.75
