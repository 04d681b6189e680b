"""bench/decode.py: decoding and prompts beside other programs."""

import csv
import sys
from types import SimpleNamespace

import paths
import pytest

sys.path.insert(0, str(paths.REPOSITORY / "bench"))
import decode  # noqa: E402
from binaries import Unusable  # noqa: E402

# A program that knows its version and takes turns, the third of which it doesn't survive.
PEER = """
import sys
print('{"version": "peer 1"}', flush=True)
for number, _ in zip((10.0, 20.0), sys.stdin):
    print('{"tokens_per_s": %s}' % number, flush=True)
"""


def test_quantiles_lie_between_their_neighbours():
    assert decode.quantiles([5.0, 1.0, 2.0, 4.0, 3.0]) == {
        "tokens_per_s_p20": "1.80", "tokens_per_s_p50": "3.00", "tokens_per_s_p80": "4.20"}
    assert set(decode.quantiles([7.0]).values()) == {"7.00"}


def test_a_peer_answers_line_by_line_and_its_end_is_told():
    peer = decode.Peer("peer", 2, [sys.executable, "-c", PEER])
    assert (peer.version, peer.measure(), peer.measure()) == ("peer 1", 10.0, 20.0)
    peer.child.wait()
    with pytest.raises(Unusable, match="answer of peer"):
        peer.child.stdin = SimpleNamespace(write=lambda _: None, flush=lambda: None,
                                           close=lambda: None)
        peer.measure()
    with pytest.raises(Unusable, match="no-such-program"):
        decode.Peer("other", 2, ["no-such-program"])


def bench_of(rounds):
    bench = decode.Bench.__new__(decode.Bench)
    bench.options = SimpleNamespace(model="models/m", rounds=rounds, threads=2)
    bench.binary = SimpleNamespace(commit="abc", facts={"cpu": "a, cpu", "cores": 2,
                                                        "wavroute": "0.1.0"})
    bench.rows = []
    return bench


def test_both_take_turns_and_a_ratio_is_of_one_round():
    bench, order = bench_of(3), []

    def taker(name, values):
        left = iter(values)
        return lambda: order.append(name) or next(left)

    bench.read_bandwidth = taker("read", [10.0, 20.0, 10.0])
    peer = SimpleNamespace(name="other", version="other 1", threads=1,
                           measure=taker("theirs", [1.0, 4.0, 8.0]))
    bench.take_turns("decode", "f32", 128, taker("ours", [2.0, 4.0, 4.0]), peer, 1e9)
    assert order == ["ours", "theirs", "read", "theirs", "ours", "read", "ours", "theirs", "read"]
    ours, theirs = bench.rows
    assert (ours["provider"], ours["threads"], ours["tokens_per_s_p50"]) == ("wavroute", 2, "4.00")
    # 2, 4 and 4 GB/s of 10, 20 and 10.
    assert (ours["gb_per_s"], ours["percent_of_read"], ours["ratio"]) == ("4.00", "20.0", "")
    assert (theirs["threads"], theirs["ratio"]) == (1, "1.000")  # of 2, 1 and 1/2


def test_rows_are_appended_under_one_header(tmp_path):
    bench, file = bench_of(1), tmp_path / "new" / "decode.csv"
    bench.take_turns("prompt", "bf16", 512, lambda: 5.0, None)
    for _ in range(2):
        decode.append_rows(file, bench.rows)
    header, first, second = csv.reader(file.read_text().splitlines())
    assert tuple(header) == decode.COLUMNS and first == second
    assert first[header.index("machine")] == "a, cpu"
    file.write_text("another,header\n")
    with pytest.raises(Unusable, match="another,header"):
        decode.append_rows(file, bench.rows)


@pytest.mark.parametrize("arguments", (["--types", "f32,f64"], ["--measures", "train"],
                                       ["--rounds", "0"]))
def test_what_it_does_not_know_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        decode.parse(["wavroute", "model", *arguments])
    assert ended.value.code == 2 and "expected" in capsys.readouterr().err

