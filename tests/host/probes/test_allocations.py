"""The allocation probes against programs that know exactly what they have not given back."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.model.allocation import AllocationKind, AllocationSnapshot, ProbeCosts, ProbeTuning
from gprof_lite.probes import allocation_layout as layout
from gprof_lite.probes.allocation_events import AllocationEvent, ChildForked, LargeMapping, ProgramReplaced, TargetEnded
from gprof_lite.probes.allocations import AllocationProbe
from gprof_lite.probes.allocators import find_allocators
from gprof_lite.probes.attach import kernel_uprobes
from gprof_lite.probes.loader import LoaderChoice, open_object
from gprof_lite.probes.return_probes import ReturnProbeRules
from tests.probed_programs import (
    ALLOCATOR_SOURCE,
    BUILDS,
    Build,
    ProbedProgram,
    build,
    build_library,
    build_with_libraries,
    functions_of,
    outstanding,
    wait_until,
)

EVERYTHING = ProbeTuning(sample_bytes=0, min_size_bytes=1)


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Build]:
    directory = tmp_path_factory.mktemp("probed")
    return lambda name: build(name, directory)


@pytest.fixture(params=list(BUILDS))
def any_build(request: pytest.FixtureRequest, builds: Callable[[str], Build]) -> Build:
    return builds(request.param)


@contextmanager
def watched(program: ProbedProgram, tuning: ProbeTuning = EVERYTHING, **options: object) -> Iterator[AllocationProbe]:
    with AllocationProbe((program.identity,), tuning, **{"fault_rate": None, **options}) as probe:  # type: ignore[arg-type]
        probe.attach()
        # Another tool (bcc's memleak, in a benchmark) may hold a place for a while: then it is tried again.
        wait_until(lambda: probe.rescan() or not probe.targets[0].problems, within_s=30.0)
        assert probe.targets[0].n_probes > 0
        yield probe


def nothing_lost(snapshot: AllocationSnapshot) -> bool:
    return snapshot.losses.counts == {}


def only(prefix: str, truth: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return {name: value for name, value in truth.items() if name.startswith(prefix)}


def test_every_function_of_the_family_is_accounted_for_exactly(any_build: Build) -> None:
    # GIVEN a program with one of the allocators
    with ProbedProgram(any_build) as program, watched(program) as probe:
        # WHEN it takes from each function, gives some back, grows, fails and moves blocks
        program.do("family", 200)
        program.do("freed", 200)
        program.do("grow", 50)
        truth = program.do("reallocs", 30)
        # THEN each function has outstanding exactly what it says
        snapshot = probe.snapshot()
        assert outstanding(snapshot.stacks) == truth
        assert nothing_lost(snapshot)


@pytest.mark.filterwarnings("ignore:not a bytes object")  # bcc wants text as bytes and takes strings
@pytest.mark.parametrize("name", ["glibc", "musl"])
def test_programs_that_bcc_compiled_see_the_same(builds: Callable[[str], Build], name: str) -> None:
    # GIVEN the same sources, compiled on this host by bcc
    with ProbedProgram(builds(name)) as program, watched(program, loader=LoaderChoice.BCC) as probe:
        # WHEN a program takes, gives back, grows, fails, moves and maps
        program.do("family", 100)
        program.do("freed", 100)
        program.do("grow", 20)
        program.do("maps", 5)
        truth = program.do("reallocs", 10)
        # THEN it is accounted for as exactly, but for what a library took in between: bcc's stacks miss its caller
        snapshot = probe.snapshot()
        seen = outstanding(snapshot.stacks)
        del truth["out_strdup"]
        seen.pop("out_strdup", None)
        assert {name: n_bytes for name, (_, n_bytes) in seen.items()} == {
            name: n_bytes for name, (_, n_bytes) in truth.items()
        }
        assert nothing_lost(snapshot)


@pytest.mark.filterwarnings("ignore:not a bytes object")  # bcc wants text as bytes and takes strings
def test_bcc_finds_out_what_was_freed_in_a_pause_too(builds: Callable[[str], Build]) -> None:
    with ProbedProgram(builds("glibc")) as program, watched(program, loader=LoaderChoice.BCC) as probe:
        program.do("replaced", 10)
        probe.pause()
        program.do("replaced", 10)
        probe.attach()
        program.do("replaced", 7)
        assert outstanding(probe.snapshot().stacks) == {"out_replaced": (7, 280)}


@pytest.mark.parametrize("name", ["glibc", "musl", "jemalloc"])
def test_every_page_of_a_mapping_is_accounted_for_exactly(builds: Callable[[str], Build], name: str) -> None:
    # GIVEN a program that maps, cuts at both ends and in the middle, grows, shrinks, moves and reserves
    with ProbedProgram(builds(name)) as program, watched(program) as probe:
        # WHEN it has done so
        truth = program.do("maps", 20)
        # THEN each stack has the bytes that are left of its mappings
        snapshot = probe.snapshot()
        mappings = [stack for stack in snapshot.stacks if stack.kind is AllocationKind.MMAP]
        sums = {function: n_bytes for function, (_, n_bytes) in outstanding(mappings).items()}
        assert sums == {function: n_bytes for function, (_, n_bytes) in truth.items()}
        assert nothing_lost(snapshot)


def test_a_heap_end_that_the_program_moves_is_accounted_for(builds: Callable[[str], Build]) -> None:
    # GIVEN a program that calls sbrk, up and down again
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        # WHEN it has done so
        truth = program.do("heap_end", 10)
        # THEN what is left is known, as memory from brk, and the allocator's own calls are not among it
        stacks = [stack for stack in probe.snapshot().stacks if stack.kind is AllocationKind.BRK]
        assert outstanding(stacks) == truth
        assert {function for stack in stacks for function in functions_of(stack)} >= {"out_sbrk", "main"}


@pytest.mark.parametrize("name", ["glibc", "jemalloc", "musl"])
def test_threads_do_not_disturb_each_other(builds: Callable[[str], Build], name: str) -> None:
    # GIVEN a program
    with ProbedProgram(builds(name)) as program, watched(program) as probe:
        # WHEN eight threads allocate, move and free at once
        truth = program.do("threads", 2_000)
        # THEN nothing is mixed up
        snapshot = probe.snapshot()
        assert outstanding(snapshot.stacks) == truth
        assert nothing_lost(snapshot)


def test_stacks_of_many_threads_are_no_mappings_of_the_program(builds: Callable[[str], Build]) -> None:
    # GIVEN a program
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        # WHEN it has 2,000 threads at once
        program.do("crowd", 2_000)
        # THEN their stacks, arenas and blocks are not outstanding by its own hand
        snapshot = probe.snapshot()
        assert [stack for stack in snapshot.stacks if stack.kind is AllocationKind.MMAP] == []
        assert nothing_lost(snapshot)


def test_the_return_probes_of_older_kernels_see_the_same(builds: Callable[[str], Build]) -> None:
    for kernel in (kernel_uprobes().without_session(), kernel_uprobes().without_session().without_multi()):
        # GIVEN a kernel without session links, and one without multi links
        with ProbedProgram(builds("musl")) as program, watched(program, uprobes=kernel) as probe:
            # WHEN a program calls functions that call each other
            program.do("family", 50)
            program.do("freed", 50)
            truth = program.do("reallocs", 20)
            # THEN each is counted once
            snapshot = probe.snapshot()
            assert outstanding(snapshot.stacks) == truth
            assert nothing_lost(snapshot)


def test_samples_stand_for_what_was_not_sampled(builds: Callable[[str], Build]) -> None:
    # GIVEN one sample per 4 KiB of small blocks
    with ProbedProgram(builds("glibc")) as program, watched(program, ProbeTuning(sample_bytes=4096)) as probe:
        # WHEN 40,000 blocks of 16 to 2,015 bytes come and half of them go
        count, n_bytes = program.do("mixed", 40_000)["out_mixed"]
        # THEN 5,000 samples stand for them, within five standard errors
        snapshot = probe.snapshot()
        stack = next(stack for stack in snapshot.stacks if "out_mixed" in functions_of(stack))
        n_samples = n_bytes / 4096
        assert 0.7 * n_samples < stack.n_sampled / 2 < 1.3 * n_samples
        assert stack.outstanding_bytes == pytest.approx(n_bytes, rel=5 / n_samples**0.5)
        assert stack.n_outstanding == pytest.approx(count, rel=0.25)
        assert stack.allocated_bytes == pytest.approx(2 * n_bytes, rel=5 / n_samples**0.5 + 0.02)


def test_one_in_n_of_medium_blocks_stands_for_n(builds: Callable[[str], Build]) -> None:
    # GIVEN every tenth block from 64 bytes on
    tuning = ProbeTuning(min_size_bytes=64, sampling_rate=10, sample_bytes=0)
    with ProbedProgram(builds("glibc")) as program, watched(program, tuning) as probe:
        # WHEN 20,000 blocks of 77 bytes stay
        program.do("threads", 2_500)
        # THEN 2,000 of them, by chance, stand for all
        stack = next(stack for stack in probe.snapshot().stacks if "out_malloc" in functions_of(stack))
        assert stack.n_sampled == pytest.approx(2_000, rel=0.12)
        assert (stack.n_outstanding, stack.outstanding_bytes) == (10 * stack.n_sampled, 770 * stack.n_sampled)


def test_large_blocks_are_all_followed(builds: Callable[[str], Build]) -> None:
    # GIVEN a tuning that follows next to nothing else
    tuning = ProbeTuning(min_size_bytes=1000, sampling_rate=1_000_000, large_bytes=70_000, sample_bytes=1 << 31)
    with ProbedProgram(builds("glibc")) as program, watched(program, tuning) as probe:
        # WHEN blocks of 70,000 bytes stay
        truth = program.do("reallocs", 40)
        # THEN they are all there
        assert outstanding(probe.snapshot().stacks) == only("out_moved", truth)


def test_a_full_map_halves_the_share_of_addresses_and_stays_true(builds: Callable[[str], Build]) -> None:
    # GIVEN room for 2,048 blocks
    tuning = ProbeTuning(sample_bytes=0, min_size_bytes=1, max_blocks=2_048)
    with ProbedProgram(builds("glibc")) as program, watched(program, tuning) as probe:
        # WHEN 40,000 stay, and user space looks now and then
        for _ in range(40):
            program.do("threads", 125)
            probe.rescan()
        count, n_bytes = program.do("nothing", 0)["out_malloc"]
        # THEN fewer are followed, none was refused for want of room, and the sums are still right
        snapshot = probe.snapshot()
        assert snapshot.address_share <= 1 / 16
        assert snapshot.losses.counts.get("map_full", 0) == 0
        stacks = [stack for stack in snapshot.stacks if "out_malloc" in functions_of(stack)]
        assert sum(stack.outstanding_bytes for stack in stacks) == pytest.approx(n_bytes, rel=0.25)
        assert sum(stack.n_outstanding for stack in stacks) == pytest.approx(count, rel=0.25)
        # AND what was given back is not outstanding
        freed = [s for s in snapshot.stacks if functions_of(s)[0].startswith("freed")]
        assert freed
        assert sum(s.outstanding_bytes for s in freed) == 0


def test_a_map_that_fills_between_two_looks_is_counted_and_stays_true(builds: Callable[[str], Build]) -> None:
    # GIVEN room for 1,024 blocks
    tuning = ProbeTuning(sample_bytes=0, min_size_bytes=1, max_blocks=1_024)
    with ProbedProgram(builds("glibc")) as program, watched(program, tuning) as probe:
        # WHEN 16,000 stay before anybody looks
        _count, n_bytes = program.do("threads", 2_000)["out_malloc"]
        # THEN later ones were followed by ever smaller shares
        stacks = [stack for stack in probe.snapshot().stacks if "out_malloc" in functions_of(stack)]
        assert sum(stack.outstanding_bytes for stack in stacks) == pytest.approx(n_bytes, rel=0.5)


def test_more_stacks_than_there_is_room_for_are_counted(builds: Callable[[str], Build]) -> None:
    # GIVEN room for 3 stacks
    with ProbedProgram(builds("glibc")) as program, watched(program, max_stacks=3) as probe:
        # WHEN a program has more
        program.do("family", 10)
        # THEN three are kept and the others counted
        snapshot = probe.snapshot()
        assert len(snapshot.stacks) == 3
        assert snapshot.losses.counts["stacks_full"] >= 30


def test_a_forked_child_is_followed(builds: Callable[[str], Build]) -> None:
    # GIVEN a program
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        program.do("family", 20)
        # WHEN it forks, and the child allocates by itself
        program.begin("child", 30)
        events: list[AllocationEvent] = []

        def child_has_allocated() -> bool:
            probe.rescan()
            events.extend(probe.events())
            forked = [event for event in events if isinstance(event, ChildForked)]
            return bool(forked) and any(
                stack.pid == forked[0].child_pid and stack.n_outstanding == 30 for stack in probe.snapshot().stacks
            )

        # THEN its blocks are its own, by its own pid
        wait_until(child_has_allocated)
        child = next(event for event in events if isinstance(event, ChildForked))
        assert child == ChildForked(program.pid, child.child_pid, True)
        stacks = [stack for stack in probe.snapshot().stacks if stack.pid == child.child_pid]
        assert outstanding(stacks, program.pid) == {"out_malloc": (30, 30 * 123)}
        program.end()
        # AND its end is told, what it had outstanding still there
        wait_until(lambda: TargetEnded(child.child_pid) in probe.events())
        assert [s.n_outstanding for s in probe.snapshot().stacks if s.pid == child.child_pid] == [30]


def test_children_are_left_alone_when_asked(builds: Callable[[str], Build]) -> None:
    with ProbedProgram(builds("glibc")) as program, watched(program, follow_children=False) as probe:
        program.do("child", 1)
        events = probe.events()
        assert [event for event in events if isinstance(event, ChildForked) and not event.followed]
        assert len(probe.targets) == 1


def test_exec_begins_anew(builds: Callable[[str], Build]) -> None:
    # GIVEN a program that has blocks outstanding
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        program.do("family", 20)
        assert outstanding(probe.snapshot().stacks)
        # WHEN it becomes another program with the same pid, which allocates something else
        program.begin("exec", 0)
        wait_until(lambda: ProgramReplaced(program.pid) in probe.events())
        truth = program.do("grow", 5)
        # THEN only that is outstanding, and its stacks have their frames
        assert outstanding(probe.snapshot().stacks) == truth
        assert "main" in functions_of(next(s for s in probe.snapshot().stacks if "out_grown" in functions_of(s)))


def test_a_library_that_is_loaded_later_has_whole_stacks(builds: Callable[[str], Build], tmp_path: Path) -> None:
    # GIVEN a program that will load a library
    library = build_library(tmp_path)
    with ProbedProgram(builds("glibc"), PROBE_LIBRARY=str(library)) as program, watched(program) as probe:
        # WHEN it does, and the probes look again once it has, as they do each second
        program.begin("library", 25)
        wait_until(lambda: str(library) in Path(f"/proc/{program.pid}/maps").read_text())
        probe.rescan()
        program.end()
        # THEN the library's function and its callers are in the stack
        stack = next(s for s in probe.snapshot().stacks if "out_of_library" in functions_of(s))
        assert stack.n_outstanding == 25
        assert "main" in functions_of(stack)


def test_an_allocator_that_is_loaded_later_is_probed(builds: Callable[[str], Build], tmp_path: Path) -> None:
    # GIVEN a program under the probes
    library = str(build_library(tmp_path, ALLOCATOR_SOURCE))
    with ProbedProgram(builds("glibc"), PROBE_LIBRARY=library) as program, watched(program) as probe:
        n_before = probe.targets[0].n_probes
        # WHEN it loads a library that carries another allocator
        program.begin("library", 25)
        wait_until(lambda: library in Path(f"/proc/{program.pid}/maps").read_text())
        probe.rescan()
        # THEN its functions are probed, too
        assert probe.targets[0].n_probes == n_before + 2
        assert outstanding(probe.snapshot().stacks) == {}
        program.end()
        assert outstanding(probe.snapshot().stacks) == {"out_of_library": (25, 25 * 64)}


def test_what_is_freed_in_a_pause_is_found_out_when_its_memory_is_used_again(builds: Callable[[str], Build]) -> None:
    # GIVEN a program with outstanding blocks and mappings
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        program.do("replaced", 10)
        before = probe.snapshot()
        # WHEN the probes pause, it goes on, and they resume
        probe.pause()
        program.do("replaced", 1_000)
        paused = probe.snapshot()
        truth = program.do("maps", 3)
        probe.attach()
        program.do("replaced", 7)
        after = probe.snapshot()
        # THEN in the pause nothing changed
        assert outstanding(paused.stacks) == outstanding(before.stacks)
        assert paused.hits == before.hits
        # AND after it only new blocks are outstanding: the addresses of the others were freed again
        blocks = [stack for stack in after.stacks if stack.kind is AllocationKind.MALLOC]
        assert outstanding(blocks) == {"out_replaced": (7, 280)}
        # AND mappings were seen all the time
        mappings = [stack for stack in after.stacks if stack.kind is AllocationKind.MMAP]
        assert sum(stack.outstanding_bytes for stack in mappings) == sum(
            truth[name][1] for name in ("out_mmap", "out_cut", "out_mremap")
        )
        assert sum(stack.epochs[0].outstanding_bytes for stack in mappings) == sum(
            stack.outstanding_bytes for stack in mappings
        )
        stack = next(s for s in after.stacks if "out_replaced" in functions_of(s))
        assert (stack.n_allocated, stack.allocated_bytes) == (17, 680)
        assert stack.epochs[0].outstanding_bytes == 280
        # AND it is known how much of the time was seen
        assert after.attached_s == before.attached_s
        assert 0 < sum(after.epoch_observed_s) <= after.observed_s < after.taken_s - after.attached_s


def test_what_stays_is_known_to_stay_over_a_pause(builds: Callable[[str], Build]) -> None:
    # GIVEN a program that keeps what it allocates, before, in and after a pause
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        program.do("paused", 10)
        probe.pause()
        program.do("paused", 100)
        probe.attach()
        program.do("paused", 7)
        # THEN what it took while somebody looked is outstanding
        assert outstanding(probe.snapshot().stacks) == {"out_paused": (17, 680)}


def test_frees_alone_are_seen_at_the_end_of_a_burst(builds: Callable[[str], Build]) -> None:
    # GIVEN blocks that are followed, and no new ones from now on
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        program.do("replaced", 10)
        probe.stop_taking()
        # WHEN they are freed and others take their place
        program.do("replaced", 1_000)
        # THEN the old ones are gone, the new ones are not known, and the clock of what is taken stands still
        first, second = probe.snapshot(), probe.snapshot()
        assert outstanding(first.stacks) == {}
        assert not probe.is_taking
        assert first.epoch_observed_s == second.epoch_observed_s
        assert first.observed_s < second.observed_s


def test_a_followed_block_is_followed_to_where_realloc_moves_it_when_no_new_ones_are(
    builds: Callable[[str], Build],
) -> None:
    # GIVEN blocks that are followed, and no new ones from now on
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        program.do("enlarged", 50)
        assert outstanding(probe.snapshot().stacks) == {"out_enlarged": (50, 2_000)}
        probe.stop_taking()
        # WHEN realloc moves them, and makes twenty new ones
        program.do("enlarged", 70)
        # THEN the moved ones are followed, with the size they have now
        assert outstanding(probe.snapshot().stacks) == {"out_enlarged": (50, 20_000)}
        # AND when they are freed, that is seen
        program.do("enlarged", 0)
        assert outstanding(probe.snapshot().stacks) == {}


@pytest.mark.parametrize("keep_reallocs", [True, False])
def test_in_a_pause_a_followed_block_is_followed_through_realloc_if_wanted(
    builds: Callable[[str], Build], keep_reallocs: bool
) -> None:
    # GIVEN blocks that are followed, and a pause
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        program.do("enlarged", 50)
        probe.pause(keep_reallocs=keep_reallocs)
        # WHEN realloc moves them
        program.do("enlarged", 50)
        # THEN they are where they are now, or where they were
        bytes_each = 400 if keep_reallocs else 40
        assert outstanding(probe.snapshot().stacks) == {"out_enlarged": (50, 50 * bytes_each)}
        # AND when looking at realloc becomes too dear, nothing of it is seen
        probe.stop_reallocs()
        program.do("enlarged", 50)
        assert outstanding(probe.snapshot().stacks) == {"out_enlarged": (50, 50 * bytes_each)}


def test_tuning_reaches_the_kernel_while_it_runs(builds: Callable[[str], Build]) -> None:
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        program.do("paused", 50)
        # WHEN next to nothing is followed from now on
        probe.retune(ProbeTuning(sample_bytes=1 << 31))
        program.do("paused", 5_000)
        # THEN what was followed is as it was
        assert outstanding(probe.snapshot().stacks) == {"out_paused": (50, 2_000)}
        assert probe.hits().hits["malloc"] >= 5_050


def test_blocks_are_kept_by_the_epoch_they_were_born_in(builds: Callable[[str], Build]) -> None:
    # GIVEN epochs of 300 ms
    tuning = ProbeTuning(sample_bytes=0, min_size_bytes=1, epoch_ns=300_000_000, n_epochs=4)
    with ProbedProgram(builds("glibc")) as program, watched(program, tuning) as probe:
        # WHEN blocks are born in two of them
        program.do("paused", 3)
        program.do("grow", 1)
        wait_until(lambda: probe.snapshot().taken_s - probe.snapshot().attached_s > 0.32)
        program.do("paused", 5)
        program.do("grow", 1)
        stacks = probe.snapshot().stacks
        # THEN each is in its own, four in all
        paused = next(s for s in stacks if "out_paused" in functions_of(s))
        assert paused.epochs[0].outstanding_bytes == 120
        assert sum(epoch.outstanding_bytes for epoch in paused.epochs) == 320
        assert len(paused.epochs) == 4
        # AND a block that grew is as old as it was
        grown = next(s for s in stacks if "out_grown" in functions_of(s))
        assert [epoch.outstanding_bytes for epoch in grown.epochs] == [2000, 0, 0, 0]
        assert (grown.n_outstanding, grown.allocated_bytes) == (1, 2000)


def test_garbage_in_the_frame_pointer_makes_no_stack_of_every_allocation(builds: Callable[[str], Build]) -> None:
    # GIVEN a program that calls malloc with random frame pointers
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        # WHEN it does so 3,000 times
        truth = program.do("corrupt", 3_000)
        # THEN there is one stack, or few, and all is accounted for
        stacks = [s for s in probe.snapshot().stacks if "out_corrupt" in functions_of(s)]
        assert len(stacks) <= 3
        assert outstanding(stacks) == only("out_corrupt", truth)


def test_a_target_that_vanishes_is_an_end_and_no_error(builds: Callable[[str], Build]) -> None:
    with ProbedProgram(builds("glibc")) as program:
        identity = program.identity
        with AllocationProbe((identity,), EVERYTHING) as probe:
            probe.attach()
            truth = program.do("paused", 5)
            program.kill()
            wait_until(lambda: not identity.is_alive())
            probe.rescan()
            # THEN it has ended, and what it had can be read
            assert probe.targets[0].has_ended
            assert TargetEnded(identity.pid) in probe.events()
            assert [s.n_outstanding for s in probe.snapshot().stacks if s.n_outstanding == 5] == [5], truth
        # AND a process that is gone before anything began is the same
        with AllocationProbe((identity,), EVERYTHING) as probe:
            probe.attach()
            assert probe.targets[0].has_ended


PROBER = """
import sys, time
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.model.allocation import ProbeTuning
from gprof_lite.probes.allocations import AllocationProbe
with AllocationProbe((ProcessIdentity.of(int(sys.argv[1])),), ProbeTuning(sample_bytes=0)) as probe:
    probe.attach()
    print(probe.targets[0].n_probes, flush=True)
    time.sleep(60)
"""


def test_a_killed_prober_leaves_nothing_and_the_target_unharmed(builds: Callable[[str], Build]) -> None:
    # GIVEN a prober in another process
    with ProbedProgram(builds("glibc")) as program:
        prober = subprocess.Popen([sys.executable, "-c", PROBER, str(program.pid)], stdout=subprocess.PIPE, text=True)
        with prober:
            assert prober.stdout is not None
            assert int(prober.stdout.readline()) > 0
            assert n_breakpoints(program.pid) > 0
            program.begin("threads", 5_000)
            # WHEN it is killed while the target allocates
            prober.kill()
        # THEN the target finishes its work, and nothing is attached to it
        assert program.end()["out_malloc"] == (40_000, 77 * 40_000)
        wait_until(lambda: n_breakpoints(program.pid) == 0)


def n_breakpoints(pid: int) -> int:
    """In how many allocation functions of a process there is a breakpoint now."""
    n = 0
    for module in find_allocators(pid).modules:
        for point in module.functions.values():
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                span, flags, offset, _device, inode, *_ = line.split()
                start, end = (int(each, 16) for each in span.split("-"))
                at = point.probe_file_offset - int(offset, 16)
                if int(inode) == module.inode and "x" in flags and 0 <= at < end - start:
                    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                        memory.seek(start + at)
                        n += memory.read(1) == b"\xcc"
    return n


@pytest.mark.parametrize(("frame_pointers", "least"), [(True, 0.97), (False, 0.6)], ids=["kept", "omitted"])
def test_callers_behind_libraries_without_frame_pointers_are_found(
    tmp_path: Path, frame_pointers: bool, least: float
) -> None:
    # GIVEN a C++ program and Debian's libraries, which keep no frame pointers
    built = build_with_libraries(tmp_path, frame_pointers=frame_pointers)
    with ProbedProgram(built) as program, watched(program) as probe:
        # WHEN it allocates through strings, streams, containers, stdio and strdup
        program.do("some", 1)
        # THEN nearly all bytes are at exactly the function that kept them, called by main
        snapshot = probe.snapshot()
        right = sum(stack.outstanding_bytes for stack in snapshot.stacks if _is_right(functions_of(stack)))
        assert right >= least * sum(stack.outstanding_bytes for stack in snapshot.stacks)
        # AND stacks are few: garbage does not make new ones
        assert len(snapshot.stacks) < 40
        assert nothing_lost(snapshot)


def _is_right(functions: list[str]) -> bool:
    ours = [function for function in functions if function.startswith("out_")]
    return len(ours) == 1 and "main" in functions[functions.index(ours[0]) :]


def test_page_faults_say_who_touches_memory(builds: Callable[[str], Build]) -> None:
    # GIVEN a program, with page faults watched
    with ProbedProgram(builds("glibc")) as program, watched(program, fault_rate=1) as probe:
        # WHEN it touches 2,000 new pages, and only reads 2,000 others
        program.do("touch", 2_000)
        # THEN the function that wrote has them, and the one that read has none
        stacks = [stack for stack in probe.snapshot().stacks if stack.kind is AllocationKind.FAULT]
        by_function = {functions_of(stack)[0]: stack.allocated_bytes for stack in stacks}
        assert by_function["out_touched"] == pytest.approx(2_000 * 4096, rel=0.02)
        assert "only_read" not in by_function
        assert probe.hits().hits["fault"] >= 2_000
        # AND their caller is known
        stack = next(stack for stack in stacks if functions_of(stack)[0] == "out_touched")
        assert "main" in functions_of(stack)


def test_one_in_n_page_faults_stands_for_n(builds: Callable[[str], Build]) -> None:
    with ProbedProgram(builds("glibc")) as program, watched(program, fault_rate=8) as probe:
        program.do("touch", 8_000)
        stacks = [stack for stack in probe.snapshot().stacks if functions_of(stack)[0] == "out_touched"]
        n_bytes = sum(stack.allocated_bytes for stack in stacks)
        assert n_bytes == pytest.approx(8_000 * 4096, rel=0.2)
        assert n_bytes % (8 * 4096) == 0


@pytest.mark.filterwarnings("ignore:not a bytes object")  # bcc wants text as bytes and takes strings
def test_beyond_the_limit_no_block_is_followed_and_whoever_waits_is_woken(
    bpf_loader: LoaderChoice, builds: Callable[[str], Build]
) -> None:
    # GIVEN hits that cost 1 us each, and a limit that is far away
    with ProbedProgram(builds("glibc")) as program, watched(program, loader=bpf_loader) as probe:
        probe.price(ProbeCosts({"malloc": 1_000.0}, 0.0))
        probe.limit(1e9)
        program.do("family", 50)
        assert not is_readable(probe.alarm_fd)
        before = probe.snapshot()
        assert nothing_lost(before)
        # WHEN it may spend no more than ten hits
        probe.limit(10_000.0)
        program.do("family", 50)
        # THEN the eleventh is seen, and not followed, and that is told and counted
        after = probe.snapshot()
        assert is_readable(probe.alarm_fd)
        assert sum(after.hits.hits.values()) > sum(before.hits.hits.values()) + 400
        assert after.hits.n_sampled <= before.hits.n_sampled + 10
        assert after.losses.counts["over_limit"] >= 300
        assert set(after.losses.counts) == {"over_limit"}
        # AND with a new limit it goes on, and is quiet
        probe.limit(1e9)
        program.do("family", 50)
        assert not is_readable(probe.alarm_fd)
        assert probe.snapshot().hits.n_sampled >= after.hits.n_sampled + 300


def test_what_was_taken_before_the_limit_is_seen_to_be_freed_beyond_it(builds: Callable[[str], Build]) -> None:
    # GIVEN blocks that are followed when the limit is reached
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        program.do("replaced", 10)
        probe.price(ProbeCosts({"malloc": 1_000.0}, 0.0))
        probe.limit(1.0)
        # WHEN the program frees them, and takes others
        program.do("replaced", 10)
        # THEN nothing is left of what was followed
        assert outstanding(probe.snapshot().stacks) == {}


def is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_without_any_probe_attached_nothing_is_seen(builds: Callable[[str], Build]) -> None:
    # GIVEN probes that were attached and then taken away
    with ProbedProgram(builds("glibc")) as program, watched(program, fault_rate=1) as probe:
        probe.detach()
        before = probe.hits()
        # WHEN the program does all it can
        for scenario in ("family", "maps", "touch"):
            program.do(scenario, 100)
        # THEN there is not one breakpoint in it, and not one hit
        assert n_breakpoints(program.pid) == 0
        assert probe.hits() == before


def test_a_return_probe_that_would_do_harm_is_refused_in_words(builds: Callable[[str], Build]) -> None:
    # GIVEN rules that forbid return probes under a shadow stack or seccomp, and a program under seccomp
    rules = ReturnProbeRules(under_seccomp=False, on_shadow_stack=False)
    with ProbedProgram(builds("glibc")) as program:
        program.do("seccomp", 0)
        with AllocationProbe((program.identity,), EVERYTHING, rules=rules) as probe:
            # WHEN its allocations shall be followed
            probe.attach()
            # THEN nothing is attached, the words say why, and page faults are still seen
            assert n_breakpoints(program.pid) == 0
            assert "seccomp" in probe.targets[0].why_not
            program.do("touch", 500)
            assert any(stack.kind is AllocationKind.FAULT for stack in probe.snapshot().stacks)


def test_a_program_under_seccomp_survives_where_the_kernel_can(builds: Callable[[str], Build]) -> None:
    with ProbedProgram(builds("glibc")) as program:
        program.do("seccomp", 0)
        with watched(program) as probe:
            truth = program.do("family", 50)
            assert outstanding(probe.snapshot().stacks) == truth


def test_a_large_mapping_is_told(builds: Callable[[str], Build]) -> None:
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        # WHEN a program maps 8,000 pages at once, twice
        program.do("touch", 8_000)
        # THEN both are told, with their stack
        told = [event for event in probe.events() if isinstance(event, LargeMapping)]
        assert [(event.pid, event.size_bytes) for event in told] == [(program.pid, 8_000 * 4096)] * 2
        callers = {stack.stack_id: stack.addresses[0] for stack in probe.snapshot().stacks}
        assert [event.caller_ip for event in told] == [callers[event.stack_id] for event in told]


def test_events_that_were_dropped_make_no_leak(builds: Callable[[str], Build]) -> None:
    # GIVEN a program that maps and unmaps more often than the ring has room for, while nobody looks
    with ProbedProgram(builds("glibc")) as program, watched(program) as probe:
        program.do("churn", 20_000)
        # THEN the loss is counted, and nothing is outstanding for want of the news that it is not
        snapshot = probe.snapshot()
        assert snapshot.losses.counts["ring_dropped"] > 10_000
        assert outstanding(snapshot.stacks) == {}
        # AND what comes after it is right again
        truth = program.do("maps", 3)
        mappings = [stack for stack in probe.snapshot().stacks if stack.kind is AllocationKind.MMAP]
        assert {name: n for name, (_, n) in outstanding(mappings).items()} == {
            name: n for name, (_, n) in truth.items()
        }


def test_a_go_program_is_left_alone_in_words() -> None:
    # GIVEN a program made by the Go linker, waiting for input
    gofmt = shutil.which("gofmt")
    if gofmt is None:
        pytest.skip("needs gofmt: apt install golang-go")
    with subprocess.Popen([os.path.realpath(gofmt)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: Path(f"/proc/{process.pid}/exe").resolve().name == "gofmt")
        # WHEN its allocations shall be followed
        with AllocationProbe((ProcessIdentity.of(process.pid),), EVERYTHING) as probe:
            probe.attach()
            # THEN there is nothing in it, and the words say why
            assert probe.targets[0].n_probes == 0
            assert "Go" in probe.targets[0].why_not
        process.kill()


def test_the_bounds_of_the_tuning_are_checked() -> None:
    identity = ProcessIdentity.of(os.getpid())
    for wrong in (
        ProbeTuning(sampling_rate=0),
        ProbeTuning(n_epochs=17),
        ProbeTuning(epoch_ns=0),
        ProbeTuning(sample_bytes=1 << 32),
        ProbeTuning(max_blocks=1),
    ):
        with pytest.raises(ValueError, match=r".+"):
            AllocationProbe((identity,), wrong)
    with pytest.raises(ValueError, match="processes"):
        AllocationProbe((), EVERYTHING)


def test_layouts_are_those_of_the_compiled_programs() -> None:
    sizes = {
        "tunings": layout.TUNING.size,
        "levels": layout.LEVEL.size,
        "targets": layout.TARGET.size,
        "sweeps": layout.SWEEP.size,
        "code": layout.CODE_TABLE.size,
    }
    with open_object("alloc") as programs:
        programs.skip("alloc_session")
        programs.load()
        assert {name: programs.map(name).value_bytes for name in sizes} == sizes
