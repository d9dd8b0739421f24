"""The runner's own logic: who takes part, what becomes of the samples, how it ends.  No figure is judged here."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import compare, page, plots, runner
from benchmarks.ends import Cutter, Plan, framed, percentile, shares
from benchmarks.figures import Result, spread, to_json
from benchmarks.peers import NETWORKIO, PEERS, Contender
from benchmarks.processes import Broker, Failed, OutOfTime, Worker
from benchmarks.report import text
from benchmarks.runner import Options, choose, run, seen_from
from benchmarks.scenarios import SCENARIOS, find, in_order
from benchmarks.workloads import Pair, Sample, measure

SCENARIO = SCENARIOS["one-way-64B"]
#: nothing has to be installed for these
HERE = {name: Contender("raw_sockets", "noted") for name in PEERS}


# -- figures --------------------------------------------------------------------------------------------------------


def made(**samples: list[Sample]) -> Result:
    """The result of a run in which these were measured."""
    return Result(SCENARIO, "asyncio", True, samples={name.replace("_", " "): taken for name, taken in samples.items()})


def test_the_object_has_medians_and_ratios() -> None:
    values = to_json(made(
        networkio=[Sample(value, 1.0) for value in (300.0, 100.0, 200.0)], pyzmq_sync=[Sample(400.0, 1.0)], pynng=[]
    ))
    assert values["networkio"] == 200.0
    assert values["peers"] == {"pyzmq sync": 400.0}
    assert values["ratio"] == {"pyzmq sync": 0.5}
    assert values["spread"] == {"networkio": 1.0, "pyzmq sync": 0.0}
    assert values["samples"]["networkio"] == [300.0, 100.0, 200.0]
    assert json.loads(json.dumps(values)) == values


def test_further_figures_have_a_table_of_their_own() -> None:
    values = to_json(made(networkio=[Sample(10.0, 1.0, {"p99": 30.0})], pynng=[Sample(5.0, 1.0, {"p99": 60.0})]))
    assert values["p99"] == {"networkio": 30.0, "peers": {"pynng": 60.0}, "ratio": {"pynng": 0.5}}


def test_without_networkio_there_are_no_ratios() -> None:
    result = made(networkio=[], pynng=[Sample(5.0, 1.0)])
    values = to_json(result)
    assert values["networkio"] is None
    assert values["peers"] == {"pynng": 5.0}
    assert values["ratio"] == {}


def test_spread() -> None:
    assert spread([90.0, 100.0, 120.0]) == pytest.approx(0.3)
    assert spread([0.0]) == 0.0


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert percentile(values, 50) == 50.0
    assert percentile(values, 99) == 99.0
    assert percentile([7.0], 99) == 7.0
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0


def test_shares_are_nearly_equal_and_complete() -> None:
    assert shares(10, 4) == [3, 3, 2, 2]
    assert shares(1, 2) == [1, 0]


def test_cutter_finds_every_message_however_the_stream_is_split() -> None:
    draw = random.Random(5)
    for _ in range(200):
        messages = [bytes([number]) * draw.choice((0, 1, 3, 64, 5000)) for number in range(20)]
        stream, found, cutter = b"".join(map(framed, messages)), [], Cutter()
        while stream:
            length = draw.choice((1, 2, 5, 70, 3000))
            found += cutter.cut(stream[:length])
            stream = stream[length:]
        assert found == messages


# -- who takes part -------------------------------------------------------------------------------------------------


def test_quick_takes_the_four_most_relevant_and_tells_whom_it_leaves_out() -> None:
    chosen, absent, left_out = choose(SCENARIO, Options(quick=True), HERE)
    assert chosen == list(SCENARIO.peers[:4])
    assert absent == {}
    assert left_out == list(SCENARIO.peers[4:])


def test_who_is_absent_is_told_with_the_reason_and_replaced() -> None:
    table = HERE | {"pyzmq sync": Contender("x", "", ("no_such_module_",), ("pyzmq",))}
    table |= {"JetStream": Contender("x", "", program="no-such-program")}
    chosen, absent, _ = choose(SCENARIO, Options(quick=True), table)
    assert chosen == ["websockets asyncio", "picows", "pyzmq asyncio", "pynng"]
    assert absent["pyzmq sync"] == "pyzmq is not installed for this Python; `make bench-peers` does it"
    assert "no-such-program" in absent["JetStream"]


def test_peers_by_name() -> None:
    chosen, absent, left_out = choose(SCENARIOS["storm-5000"], Options(peers=["websockets asyncio", "pynng"]), HERE)
    assert chosen == ["websockets asyncio"]
    assert absent == {"pynng": "it takes no part in this scenario"}
    assert left_out == []


def test_programs_with_threads_are_compared_with_their_like() -> None:
    ordered = in_order(SCENARIO, "threads")
    assert ordered[:2] == ["pyzmq sync", "websockets sync"]
    assert sorted(ordered) == sorted(SCENARIO.peers)
    assert in_order(SCENARIOS["round-trip-64B"], "threads")[0] == "raw sockets"


def test_every_peer_of_a_scenario_is_in_the_table() -> None:
    assert {name for scenario in SCENARIOS.values() for name in scenario.peers} <= set(PEERS)


def test_a_scenario_of_many_connections_takes_other_numbers() -> None:
    assert find("storm-500") == replace(
        SCENARIOS["storm-5000"], name="storm-500", connections=500,
        title="A listener returns to 500 clients with 10 messages in flight each",
    )
    for wrong in ("storm-0", "storm-", "one-way-3", "storm-5k", "idle-5000"):
        with pytest.raises(KeyError):
            find(wrong)


@pytest.mark.parametrize(("words", "says"), [
    (["one-way"], "'one-way' is no scenario; there are one-way-64B,"),
    (["--peers", "zmq"], "'zmq' is no peer; there are pyzmq sync,"),
    (["--adapter", "gevent"], "choose from"),
    (["--fast"], "unrecognized arguments"),
    (["--beside", "asyncio"], "--beside asyncio: one of asyncio, uvloop, trio, threads, not that of --adapter"),
])
def test_mistakes_on_the_command_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        compare.arguments(words)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_the_command_line() -> None:
    options = compare.arguments(["depth", "--quick", "--json", "--adapter", "trio", "--peers", "pynng,JetStream file"])
    assert (options.scenarios, options.quick, options.json, options.adapter) == (["depth"], True, True, "trio")
    assert options.peers == ["pynng", "JetStream file"]
    assert compare.arguments([]).peers is None


# -- the runs -------------------------------------------------------------------------------------------------------


class FakePair:
    """A pair without processes; ``log`` tells what was done with all of them."""

    log: list[tuple[str, str]]
    rates: dict[str, float]

    def __init__(self, contender: str, scenario: Any, adapter: str, deadline: float) -> None:
        self.contender, self.scenario = contender, scenario
        self.log.append(("start", contender))
        if contender not in self.rates:
            raise Failed(f"{contender} does not start")

    def rest(self, deadline: float) -> None:
        pass

    def close(self) -> None:
        self.log.append(("close", self.contender))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakePair]:
    """No processes; a run takes no time, and messages pass at the rates of the table."""
    class Fresh(FakePair):
        log: list[tuple[str, str]] = []  # noqa: RUF012 (each test has a class of its own)
        rates = {NETWORKIO: 1000.0, "raw sockets": 4000.0}  # noqa: RUF012

    def measured(pair: FakePair, amount: float, deadline: float) -> Sample:
        pair.log.append(("run", pair.contender))
        return Sample(pair.rates[pair.contender], amount / pair.rates[pair.contender])

    monkeypatch.setattr(runner, "Pair", Fresh)
    monkeypatch.setattr(runner, "measure", measured)
    return Fresh


def test_contenders_alternate_and_all_are_closed(fake: type[FakePair]) -> None:
    result = run(SCENARIO, Options(quick=True, peers=["raw sockets"]), lambda line: None)
    assert {name: len(taken) for name, taken in result.samples.items()} == {NETWORKIO: 3, "raw sockets": 3}
    assert [who for what, who in fake.log if what == "run"][-4:] == [NETWORKIO, "raw sockets"] * 2
    assert [who for what, who in fake.log if what == "start"] == [NETWORKIO, "raw sockets"]
    assert fake.log[-2:] == [("close", NETWORKIO), ("close", "raw sockets")]
    assert result.complete


def test_in_full_every_repeat_has_processes_of_its_own(fake: type[FakePair]) -> None:
    result = run(SCENARIO, Options(peers=["raw sockets"]), lambda line: None)
    assert {len(taken) for taken in result.samples.values()} == {5}
    assert fake.log.count(("start", NETWORKIO)) == fake.log.count(("close", NETWORKIO)) == 5


def test_other_adapters_take_part_in_the_same_rounds(fake: type[FakePair], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str]] = []

    def pair(contender: str, scenario: Any, adapter: str, deadline: float) -> Any:
        made.append((contender, adapter))
        fake.rates[NETWORKIO] = {"asyncio": 1000.0, "threads": 500.0}[adapter]
        return fake(contender, scenario, adapter, deadline)

    monkeypatch.setattr(runner, "Pair", pair)
    fake.rates["multiprocessing.connection"] = 2000.0
    options = Options(peers=["raw sockets", "multiprocessing.connection"], beside=("threads",))
    result = run(SCENARIO, options, lambda line: None)
    peers = [(name, "asyncio") for name in ("multiprocessing.connection", "raw sockets")]
    assert made == [(NETWORKIO, "asyncio"), (NETWORKIO, "threads"), *peers] * 5
    assert result.complete
    threads = to_json(seen_from(result, "threads"))
    assert (threads["adapter"], threads[NETWORKIO]) == ("threads", 500.0)
    assert threads["ratio"] == {"multiprocessing.connection": 0.25, "raw sockets": 0.125}
    made.clear()
    run(SCENARIOS["one-way-1KiB"], options, lambda line: None)
    assert made == [(NETWORKIO, "asyncio"), *peers] * 5


def test_an_adapter_beside_that_fails_is_told(fake: type[FakePair], monkeypatch: pytest.MonkeyPatch) -> None:
    def pair(contender: str, scenario: Any, adapter: str, deadline: float) -> Any:
        if adapter == "trio":
            raise Failed("trio is not there")
        return fake(contender, scenario, adapter, deadline)

    monkeypatch.setattr(runner, "Pair", pair)
    result = run(SCENARIO, Options(peers=["raw sockets"], beside=("trio",)), lambda line: None)
    assert not result.complete
    trio = to_json(seen_from(result, "trio"))
    assert trio[NETWORKIO] is None
    assert trio["absent"] == {NETWORKIO: "trio is not there"}


def test_what_make_bench_measures_has_the_adapters_beside_each_other() -> None:
    assert [name for name, scenario in SCENARIOS.items() if scenario.adapters] == [
        "one-way-64B", "one-way-1MiB-raw", "round-trip-64B"
    ]
    for name in ("one-way-64B", "round-trip-64B"):
        assert {"pyzmq sync", "websockets sync", "raw sockets"} <= set(SCENARIOS[name].peers)


def test_the_number_of_messages_fills_a_run(fake: type[FakePair]) -> None:
    result = run(SCENARIO, Options(quick=True, peers=["raw sockets"]), lambda line: None)
    assert {sample.seconds for taken in result.samples.values() for sample in taken} == {1.0}


def test_how_often_everybody_runs() -> None:
    assert runner.repeats(SCENARIO, quick=True) == 3
    assert runner.repeats(SCENARIOS["fan-in-1000"], quick=True) == 1
    assert runner.repeats(SCENARIOS["fan-in-1000"], quick=False) == 5


def test_all_are_idle_at_the_same_time(fake: type[FakePair], monkeypatch: pytest.MonkeyPatch) -> None:
    def idle(pairs: dict[str, Any], window: float) -> dict[str, Sample]:
        assert 10 <= window <= 20
        assert ("close", NETWORKIO) not in fake.log
        return {name: Sample(float(number), window) for number, name in enumerate(pairs)}

    fake.rates["asyncio.Protocol"] = 1.0
    monkeypatch.setattr(runner, "idle", idle)
    monkeypatch.setattr(FakePair, "connecting", 1.0, raising=False)
    result = run(find("idle-cpu-50"), Options(quick=True, peers=["asyncio.Protocol"]), lambda line: None)
    assert {name: taken[0].value for name, taken in result.samples.items()} == {NETWORKIO: 0.0, "asyncio.Protocol": 1.0}
    assert [what for what, _ in fake.log] == ["start", "start", "close", "close"]


def test_who_fails_is_reported_and_the_others_go_on(fake: type[FakePair]) -> None:
    del fake.rates["raw sockets"]
    told: list[str] = []
    result = run(SCENARIO, Options(quick=True, peers=["raw sockets", "asyncio.Protocol"]), told.append)
    assert result.absent == {
        "raw sockets": "raw sockets does not start", "asyncio.Protocol": "asyncio.Protocol does not start",
    }
    assert len(result.samples[NETWORKIO]) == 3
    assert any("raw sockets failed" in line for line in told)
    assert "raw sockets                  absent: raw sockets does not start" in text("one-way-64B", to_json(result))


def test_who_fails_later_keeps_what_was_measured(fake: type[FakePair], monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(pair: Any, amount: float, deadline: float) -> Sample:
        fake.log.append(("run", pair.contender))
        if fake.log.count(("run", "raw sockets")) == 4:
            raise Failed("the cable was pulled")
        return Sample(1.0, 1.0)

    monkeypatch.setattr(runner, "measure", measured)
    values = to_json(run(SCENARIO, Options(quick=True, peers=["raw sockets"]), lambda line: None))
    assert {name: len(taken) for name, taken in values["samples"].items()} == {NETWORKIO: 3, "raw sockets": 2}
    assert values["incomplete"] == {"raw sockets": "the cable was pulled"}
    assert values["absent"] == {}


def test_quick_ends_in_time_and_says_who_had_none(fake: type[FakePair], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_QUICK", -1.0)
    result = run(SCENARIO, Options(quick=True, peers=["raw sockets"]), lambda line: None)
    assert not result.complete
    assert result.absent["raw sockets"] == "there was no time left for it (--quick)"
    assert fake.log == []


def test_quick_keeps_what_was_measured_when_the_time_is_over(
    fake: type[FakePair], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(pair: Any, amount: float, deadline: float) -> Sample:
        fake.log.append(("run", pair.contender))
        if fake.log.count(("run", NETWORKIO)) == 4:
            monkeypatch.setattr(runner, "monotonic", lambda: deadline)
            raise OutOfTime("networkio was not done in time")
        return Sample(1.0, 1.0)

    monkeypatch.setattr(runner, "measure", measured)
    result = run(SCENARIO, Options(quick=True, peers=["raw sockets"]), lambda line: None)
    assert result.complete
    assert {name: len(taken) for name, taken in result.samples.items()} == {NETWORKIO: 2, "raw sockets": 2}
    assert set(result.incomplete.values()) == {"there was no time left for it (--quick)"}


def test_all_are_closed_when_it_is_interrupted(fake: type[FakePair], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(pair: Any, amount: float, deadline: float) -> Sample:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(SCENARIO, Options(quick=True, peers=["raw sockets"]), lambda line: None)
    assert fake.log == [("start", NETWORKIO), ("close", NETWORKIO)]


def test_the_program_tells_the_result_as_json_and_by_its_exit_code(
    fake: type[FakePair], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["one-way-64B", "--quick", "--json", "--peers", "raw sockets"]
    assert compare.main(words) == 0
    values = json.loads(capsys.readouterr().out)
    assert list(values) == ["one-way-64B"]
    assert values["one-way-64B"]["ratio"] == {"raw sockets": 0.25}
    del fake.rates[NETWORKIO]
    assert compare.main(words) == 1
    assert json.loads(capsys.readouterr().out)["one-way-64B"]["networkio"] is None


# -- processes ------------------------------------------------------------------------------------------------------


def gone(pid: int) -> bool:
    """Has the process ended, and been waited for?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_real_pair_counts_and_is_ended() -> None:
    deadline = monotonic() + 30
    pair = Pair("raw sockets", SCENARIO, "asyncio", deadline)
    try:
        sample = measure(pair, 100, deadline)
        assert sample.value == pytest.approx(100 / sample.seconds)
    finally:
        pair.close()
    assert gone(pair.server.pid)
    assert gone(pair.client.pid)


def test_the_encrypted_scenario_listens_for_tls_and_is_compared_with_one_that_does_not() -> None:
    scenario = SCENARIOS["tls-64B"]
    assert dict(scenario.own["networkio plain"]) == {"settings": {}}
    assert Plan(NETWORKIO, "client", 64).trust == {}
    server = Worker(Plan(NETWORKIO, "server", 64, settings=dict(scenario.settings)))
    try:
        server.begin(None)
        address = "127.0.0.1", server.hear(monotonic() + 30)["result"]
        with socket.create_connection(address) as stranger:
            stranger.settimeout(10)
            stranger.sendall(b"this is no ClientHello")
            assert stranger.recv(1) == b"\x15"  # an alert
    finally:
        server.close()


def test_what_a_worker_complains_of_is_told(tmp_path: Path) -> None:
    worker = Worker(Plan("raw sockets", "client", 64, directory=str(tmp_path)))
    try:
        worker.begin(1)
        with pytest.raises(Failed, match=r"raw sockets \(client\): ConnectionRefusedError"):
            worker.hear(monotonic() + 30)
        with pytest.raises(Failed, match=r"not done in time|has died"):
            worker.hear(monotonic())
    finally:
        worker.close()
    assert gone(worker.pid)


def test_a_broker_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="broker did not start: no license"):
        Broker("broker", lambda port: [sys.executable, "-Ic", "import sys; sys.exit('no license')"], str(tmp_path))


# -- the page -------------------------------------------------------------------------------------------------------


def test_plots_are_well_formed() -> None:
    drawn = plots.bars("One & all", "messages/s", {"networkio": 2e6, "a <b>": 1500.0, "none": 0.0}, "networkio")
    drawn_lines = plots.lines("Growth", "bytes", "messages/s", {"networkio": [(64, 1e6), (1024, 2e5)], "nobody": []})
    for drawing in (drawn, drawn_lines, plots.lines("Nothing", "bytes", "messages/s", {})):
        assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
    assert "2 M" in drawn
    assert "nobody" not in drawn_lines


def test_the_page_is_made_anew_and_the_rest_of_it_is_left(tmp_path: Path, fake: type[FakePair]) -> None:
    results = tmp_path / "results.json"
    result = to_json(run(SCENARIO, Options(quick=True, peers=["raw sockets", "pynng"]), lambda line: None))
    result["beside"] = {"trio": result | {"adapter": "trio"}}
    results.write_text(json.dumps({"one-way-64B": result}))
    parts = "".join(f"<!-- generated: {name} -->\nold\n<!-- end -->\n" for name in ("setup", "plots", "tables"))
    target = tmp_path / "speed.md"
    target.write_text(f"before\n{parts}after\n")
    for _ in range(2):  # the second time changes nothing
        assert page.main([str(results), "--page", str(target)]) == 0
        written = target.read_text()
        assert written.startswith("before\n")
        assert written.endswith("after\n")
        assert "old" not in written
        assert written.count("| raw sockets | 4,000 | 0% | 0.25 |") == 2
        assert written.count("`one-way-64B`, trio adapter") == 1
        assert "pynng is absent" in written
        assert "![One way, 64 bytes](speed/one-way-64b-asyncio.svg)" in written
    ElementTree.parse(tmp_path / "speed/one-way-64b-asyncio.svg")


def test_a_part_that_nobody_makes_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="nothing generates 'tabels'"):
        page.rewrite("<!-- generated: tabels -->\n<!-- end -->\n", {"tables": str})


@pytest.mark.slow
def test_the_commits_of_a_durable_message_are_counted() -> None:
    """A figure of docs/howto/restarts.md."""
    program = Path(compare.__file__).parent / "durable.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program), "--lone", "2"],
        capture_output=True, text=True, timeout=60, check=True,
        env=os.environ | {"PYTHONPATH": str(program.parents[1])},
    )  # fmt: skip
    assert done.stdout == "2 messages alone: 4 commits of their sender, 2 of their receiver\n"


def test_the_parts_of_a_messages_way_are_measured() -> None:
    program = Path(compare.__file__).parent / "path.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program), "--rounds", "3"],
        capture_output=True, text=True, timeout=60, check=True,
        env=os.environ | {"PYTHONPATH": str(program.parents[1])},
    )  # fmt: skip
    figures = dict(re.findall(r"^(\S.*?) +([\d.]+) us$", done.stdout, re.MULTILINE))
    assert {"send", "read", "whole", "a call"} <= set(figures)
    assert float(figures["whole"]) > float(figures["send"]) > 0
