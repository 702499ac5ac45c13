"""Threads, forks, signals and the end of the interpreter."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest
from conftest import Kafka

import gristmill
from gristmill.testing import Cluster


def python(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tempfile.gettempdir(),  # not where the sources lie
    )


def output(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, f"{process.returncode}\n{out}\n{err}"
    return out


def test_threads_share_a_consumer_and_a_producer(broker: Kafka) -> None:
    topic = broker.topic("orders", 4)
    with gristmill.Producer(broker.bootstrap_servers) as producer:
        senders = [
            threading.Thread(target=producer.send_many, args=(topic, [b"%d-%d" % (t, n) for n in range(2000)]))
            for t in range(4)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    seen: list[bytes | None] = []
    with gristmill.Consumer(topic, group_id=topic, bootstrap_servers=broker.bootstrap_servers) as consumer:

        def work() -> None:
            for batch in consumer:
                seen.extend(batch.values())
                batch.ack()
                if len(seen) >= 8000:
                    consumer.close()

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(seen) == len(set(seen)) == 8000


CRASHING = """
    import os, sys, time, gristmill
    topic, servers, path = sys.argv[1:]
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with gristmill.Consumer(
        topic, group_id=topic, bootstrap_servers=servers, batch_records=50, properties={"group.instance.id": "one"}
    ) as consumer:
        for batch in consumer:
            for record in batch:
                os.write(out, b"%d %d\\n" % (record.partition, record.offset))
            time.sleep(0.01)
            assert batch.ack()
"""


@pytest.mark.timeout(300)
def test_kill_9_at_any_time_loses_no_record(broker: Kafka, tmp_path: Path) -> None:
    topic = broker.topic("orders", 3)
    for partition in range(3):
        broker.fill(topic, [b"x"] * 4000, partition)
    path = tmp_path / "done"
    path.touch()
    chance = random.Random(11)
    kills = 0
    until = time.monotonic() + 240

    def done() -> list[tuple[int, int]]:
        lines = path.read_bytes().split(b"\n")[:-1]
        return [(int(partition), int(offset)) for partition, offset in map(bytes.split, lines)]

    while len(set(done())) < 12_000 and time.monotonic() < until:
        before = path.stat().st_size
        process = python(CRASHING, topic, broker.bootstrap_servers, str(path))
        # Once it is at work, at any time.
        while path.stat().st_size == before and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(chance.random() * 1.5)
        process.kill()
        process.communicate()
        kills += 1
    seen = done()
    assert len(set(seen)) == 12_000, "nothing is lost"
    assert kills >= 3
    assert len(seen) < 2 * 12_000, "the group's offset went on, so that most came once"
    for partition in range(3):
        firsts = list(dict.fromkeys(offset for at, offset in seen if at == partition))
        assert firsts == sorted(firsts), "a partition comes in order"


WAITING = """
    import sys, gristmill
    what, servers = sys.argv[1:]
    consumer = gristmill.Consumer("orders", group_id="g", bootstrap_servers=servers)
    try:
        print("ready", flush=True)
        if what == "consumer":
            for batch in consumer:
                print(batch.ack(), flush=True)
        elif what == "producer":
            gristmill.Producer("127.0.0.1:1").send("orders", b"x")
        else:
            gristmill.read("orders", bootstrap_servers="127.0.0.1:1")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        consumer.close()
        sys.exit(7)
"""


@pytest.mark.parametrize("what", ["consumer", "producer", "read"])
def test_ctrl_c_ends_a_wait_at_once(kafka: Cluster, what: str) -> None:
    kafka.create_topic("orders")
    process = python(WAITING, what, kafka.bootstrap_servers)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    # A bound on hanging, far above what it takes.
    assert time.monotonic() - began < 3
    output(process, 7)


@pytest.mark.parametrize("left", ["consumer", "producer", "batch", "thread", "async", "scan", "nothing"])
def test_the_interpreter_may_end_in_the_middle_of_anything(kafka: Cluster, left: str) -> None:
    kafka.create_topic("orders")
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send_many("orders", [b"x"] * 5000)
    program = """
        import asyncio, sys, threading, gristmill
        left, servers = sys.argv[1:]
        if left != "nothing":
            consumer = gristmill.Consumer("orders", group_id="g" + left, bootstrap_servers=servers)
        if left == "producer":
            producer = gristmill.Producer("127.0.0.1:1")
        if left == "batch":
            batch = consumer.next_batch()
        if left == "thread":
            def work():
                for batch in consumer:
                    batch.ack()
            threading.Thread(target=work, daemon=True).start()
        if left == "async":
            async def wait():
                for _ in range(10):
                    await consumer.anext_batch()
                asyncio.ensure_future(consumer.anext_batch())
            asyncio.run(wait())
        if left == "scan":
            scan = gristmill.scan("orders", bootstrap_servers=servers)
            next(scan)
        print("end")
    """
    assert output(python(program, left, kafka.bootstrap_servers)) == "end\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_is_told_to_make_its_own_and_can(kafka: Cluster) -> None:
    kafka.create_topic("orders")
    program = """
        import os, sys, warnings, gristmill
        warnings.simplefilter("ignore")
        servers = sys.argv[1]
        producer = gristmill.Producer(servers)
        producer.send("orders", b"parent")
        consumer = gristmill.Consumer("orders", group_id="g", bootstrap_servers=servers)
        batch = consumer.next_batch()
        child = os.fork()
        if child == 0:
            for use in (lambda: producer.send("orders", b"x"), consumer.next_batch, batch.ack, consumer.close):
                try:
                    use()
                    os._exit(1)
                except gristmill.ClosedError as error:
                    assert "forked" in str(error), error
            with gristmill.Producer(servers) as own:
                own.send("orders", b"child")
            del producer, consumer, batch
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        assert batch.ack()
        consumer.close()
        print(len(gristmill.read("orders", bootstrap_servers=servers)))
    """
    assert output(python(program, kafka.bootstrap_servers)) == "2\n"


def test_multiprocessing_by_fork_works(kafka: Cluster) -> None:
    kafka.create_topic("orders")
    program = """
        import multiprocessing, sys, warnings, gristmill
        warnings.simplefilter("ignore")
        def work(n):
            with gristmill.Producer(sys.argv[1]) as producer:
                return producer.send("orders", b"%d" % n).partition
        gristmill.Producer(sys.argv[1]).send("orders", b"before")
        with multiprocessing.get_context("fork").Pool(3) as pool:
            assert len(pool.map(work, range(6))) == 6
        print(len(gristmill.read("orders", bootstrap_servers=sys.argv[1])))
    """
    assert output(python(program, kafka.bootstrap_servers)) == "7\n"


def test_dropping_without_close_gives_threads_and_memory_back(kafka: Cluster) -> None:
    kafka.create_topic("orders")

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    def use() -> None:
        gristmill.Producer(kafka.bootstrap_servers).send("orders", b"x")
        consumer = gristmill.Consumer("orders", group_id="g", bootstrap_servers=kafka.bootstrap_servers)
        consumer.next_batch(timeout=0.05)

    use()
    time.sleep(1)
    before = threads()
    for _ in range(10):
        use()
    until = time.monotonic() + 30
    while threads() > before + 8 and time.monotonic() < until:
        time.sleep(0.1)
    assert threads() <= before + 8


def test_what_happens_inside_goes_to_logging(kafka: Cluster) -> None:
    program = """
        import logging, sys, time, gristmill
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(name)s %(message)s")
        producer = gristmill.Producer("127.0.0.1:1", delivery_timeout=1.0)
        consumer = gristmill.Consumer("orders", group_id="g", bootstrap_servers="127.0.0.1:1")
        try:
            consumer.next_batch(timeout=1.5)
        except gristmill.GristmillError as error:
            print(error)
    """
    out = output(python(program))
    assert "WARNING gristmill" in out and "127.0.0.1:1" in out, out


def test_ctrl_c_ends_a_process_whose_handler_of_log_lines_is_stuck() -> None:
    program = """
        import logging, threading, gristmill
        stuck = threading.Event()
        class Handler(logging.Handler):
            def emit(self, record):
                print("stuck", flush=True)
                stuck.wait()
        logging.getLogger("gristmill").addHandler(Handler())
        consumer = gristmill.Consumer("orders", group_id="g", bootstrap_servers="127.0.0.1:1")
        consumer.next_batch(timeout=1.5)
    """
    process = python(program)
    assert process.stdout is not None
    assert process.stdout.readline() == "stuck\n"
    time.sleep(2)
    # Our end gives up after the first, logging's own after the second.
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(1)
    process.communicate(timeout=60)


def test_without_standard_error_there_is_no_bar(kafka: Cluster) -> None:
    kafka.create_topic("orders")
    program = """
        import sys, gristmill
        sys.stderr = None
        print(len(gristmill.read("orders", bootstrap_servers=sys.argv[1])))
    """
    assert output(python(program, kafka.bootstrap_servers)) == "0\n"


def test_the_command_is_in_the_wheel() -> None:
    command = os.path.join(os.path.dirname(sys.executable), "gristmill")
    for way in ([command], [sys.executable, "-m", "gristmill"]):
        done = subprocess.run([*way, "version"], capture_output=True, text=True, timeout=60, cwd=tempfile.gettempdir())
        assert done.returncode == 0 and done.stdout.startswith("gristmill"), done.stderr
        wrong = subprocess.run([*way, "pipeline", "check", "nowhere.yaml"], capture_output=True, text=True, timeout=60, cwd=tempfile.gettempdir())
        assert wrong.returncode == 2 and "nowhere.yaml" in wrong.stderr
        assert "gristmill run" in subprocess.run([*way, "run", "--help"], capture_output=True, text=True, timeout=60, cwd=tempfile.gettempdir()).stdout
