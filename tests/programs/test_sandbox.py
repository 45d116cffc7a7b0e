"""The sandbox: state, tools, final answers, and everything that code may try to get out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.programs.sandbox.interpreter import CodeError, FinalOutput, Interpreter, SandboxError
from tracedsl.programs.sandbox.python import PythonInterpreter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox's walls are Linux's")


@pytest.fixture(scope="module")
def box() -> Iterator[PythonInterpreter]:
    with PythonInterpreter(timeout=20) as made:
        yield made


def refused(box: PythonInterpreter, code: str) -> str:
    with pytest.raises(CodeError) as caught:
        box.execute(code)
    assert caught.value.code == "P044"
    return caught.value.text


# -- what it is for ----------------------------------------------------------------------------------------------------


def test_state_lasts_and_the_last_value_is_shown(box: PythonInterpreter) -> None:
    assert isinstance(box, Interpreter)
    assert box.execute("def double(n):\n    return 2 * n\nx = double(4)") == ""
    assert box.execute("print('x is', x)\nx + 1") == "x is 8\n9\n"
    assert box.execute("'text'") == "text\n" and box.execute("None") == ""
    assert "NameError" in refused(box, "y = 1\nprint(y)\nundefined_name") and box.execute("y") == "1\n"


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                          lambda c: st.lists(c) | st.dictionaries(st.text(), c), max_leaves=8))
def test_json_goes_in_and_comes_out_as_it_is(box: PythonInterpreter, value: Any) -> None:
    assert box.execute("SUBMIT(v)", {"v": value}) == FinalOutput(value)


def test_large_values_pass(box: PythonInterpreter) -> None:
    text = "\u00e4b\n" * 1_000_000
    assert box.execute("SUBMIT(len(t), t[-2:])", {"t": text}) == FinalOutput([len(text), "b\n"])


def test_forms_of_a_final_answer(box: PythonInterpreter) -> None:
    assert box.execute("SUBMIT(a=1, b=[2])\nprint('never')") == FinalOutput({"a": 1, "b": [2]})
    assert box.execute("SUBMIT({'a': 1})") == FinalOutput({"a": 1})
    assert box.execute("try:\n    SUBMIT(3)\nexcept BaseException:\n    pass") == FinalOutput(3)
    assert "not JSON serializable" in refused(box, "SUBMIT({1, 2})")


def test_errors_name_the_line() -> None:
    with PythonInterpreter() as box:
        assert refused(box, "a = 1\nb = a / 0").endswith("division by zero (line 2: b = a / 0)")
        assert "SyntaxError" in refused(box, "def f(:\n    pass")
        assert "SystemExit" in refused(box, "raise SystemExit(1)")
        with pytest.raises(CodeError) as caught:
            box.execute("print('before')\n[][1]")
        assert caught.value.output == "before\n" and not caught.value.state_lost


def test_tools_of_the_host_can_be_called() -> None:
    def add(a: int, b: int = 1) -> int:
        return a + b

    def fail() -> None:
        raise KeyError("not there")

    with PythonInterpreter({"add": add, "fail": fail}) as box:
        assert box.execute("add(1) * add(2, b=3)") == "10\n"
        assert "KeyError: 'not there'" in refused(box, "fail()")
        assert box.execute("try:\n    fail()\nexcept RuntimeError as e:\n    print('caught', e)").startswith("caught")
        box.tools["later"] = lambda: {"rows": (1, 2)}
        assert box.execute("later()['rows']") == "[1, 2]\n"
        assert "not JSON serializable" in refused(box, "add(object())")


def test_the_time_of_tools_is_not_counted() -> None:
    with PythonInterpreter({"wait": lambda: time.sleep(0.6)}, timeout=0.4) as box:
        assert box.execute("wait()\n'done'") == "done\n"


def test_many_sandboxes_at_the_same_time() -> None:
    found: dict[int, Any] = {}

    def work(n: int) -> None:
        with PythonInterpreter() as box:
            found[n] = box.execute(f"SUBMIT({n} ** 2)").output

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: n**2 for n in range(6)}


# -- ways out ----------------------------------------------------------------------------------------------------------


def test_all_walls_stand(box: PythonInterpreter) -> None:
    box.start()
    assert {"limits", "syscalls"} <= set(box.walls)


READS = ["open('/etc/passwd').read()", "open('/proc/self/environ').read()", "import io; io.FileIO('/etc/hostname')",
         "import posix; posix.open('/etc/passwd', 0)", "import posix; posix.listdir('/')",
         "import posix; posix.stat('/')", "import posix; posix.readlink('/proc/self/exe')", "import os; os.getcwd()"]
WRITES = ["open('/tmp/escaped', 'w')", "import posix; posix.mkdir('/tmp/escaped')", "import posix; posix.unlink('/x')",
          "import posix; posix.symlink('/', '/tmp/escaped')", "import posix; posix.chmod('/tmp', 0)"]
PROCESSES = ["import posix; posix.fork()", "import posix; posix.execv('/bin/sh', ['sh'])",
             "import posix; posix.posix_spawn('/bin/sh', ['sh'], {})", "import posix; posix.system('id') and 1/0",
             "import _thread; _thread.start_new_thread(print, ())", "import posix; posix.pipe()"]
SIGNALS = ["import posix; posix.kill(posix.getppid(), 9)", "import posix; posix.kill(1, 9)",
           "import posix; posix.killpg(0, 9)", "import posix; posix.setuid(0)", "import posix; posix.nice(-1)"]


@pytest.mark.parametrize("code", [*READS, *WRITES, *PROCESSES, *SIGNALS])
def test_the_kernel_refuses(box: PythonInterpreter, code: str) -> None:
    said = refused(box, code)
    assert any(word in said for word in ("PermissionError", "can't start new thread", "ZeroDivisionError")), said
    assert not Path("/tmp/escaped").exists()


@pytest.mark.parametrize("name", ["socket", "_socket", "subprocess", "ctypes", "_ctypes", "multiprocessing", "mmap",
                                  "numpy", "tracedsl", "resource", "_posixsubprocess", "select"])
def test_modules_that_are_not_there(box: PythonInterpreter, name: str) -> None:
    assert "No module named" in refused(box, f"import {name}")


def test_loaded_modules_do_not_lead_out(box: PythonInterpreter) -> None:
    """What the preloaded modules hold on to (`os`, file loaders) meets the same wall."""
    assert "No module named 'subprocess'" in refused(box, "import os\nos.popen('id')")
    assert "PermissionError" in refused(box, "import sys\nsys.modules['os'].rename('/a', '/b')")
    assert "PermissionError" in refused(
        box, "import importlib.machinery as m\nm.SourceFileLoader('x', '/etc/passwd').get_data('/etc/passwd')")
    assert "not permitted" in refused(
        box, "import importlib.machinery as m\nspec = m.ModuleSpec('_ctypes', None, origin='/usr/lib/x.so')\n"
             "m.ExtensionFileLoader('_ctypes', '/usr/lib/x.so').create_module(spec)")


def test_the_parents_environment_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with PythonInterpreter() as box:
        assert "sk-secret" not in box.execute("import os\nprint(dict(os.environ))")


def test_no_descriptor_is_inherited(tmp_path: Path) -> None:
    kept = os.open(tmp_path / "f", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(kept, True)
    try:
        with PythonInterpreter() as box:
            said = refused(box, f"import posix\nposix.write({kept}, b'x')")
            assert "Bad file descriptor" in said
        assert (tmp_path / "f").read_bytes() == b""
    finally:
        os.close(kept)


def test_an_endless_loop_is_stopped_and_the_state_kept() -> None:
    with PythonInterpreter(timeout=0.3) as box:
        box.execute("x = 5")
        assert "longer than 0.3 s" in refused(box, "while True:\n    pass") and box.execute("x") == "5\n"
        assert "longer" in refused(box, "import time\ntime.sleep(60)") and box.execute("x") == "5\n"


@pytest.mark.parametrize("code", ["sum(range(10**12))",
                                  "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"])
def test_code_that_does_not_stop_is_ended(code: str) -> None:
    with PythonInterpreter(timeout=0.2) as box:
        box.execute("x = 5")
        started = time.monotonic()
        with pytest.raises(CodeError, match="lost") as caught:
            box.execute(code)
        assert caught.value.state_lost and time.monotonic() - started < 20
        assert "NameError" in refused(box, "x") and box.execute("1 + 1") == "2\n"


def test_a_memory_bomb_is_an_error() -> None:
    with PythonInterpreter(memory=256) as box:
        assert "MemoryError" in refused(box, "x = 'a' * 10**9")
        assert "MemoryError" in refused(box, "def grow():\n    rows = []\n    while True:\n        rows.append('a' * "
                                             "10**6)\ngrow()")
        assert box.execute("2 + 2") == "4\n"


def test_output_is_cut_off() -> None:
    with PythonInterpreter(max_output=1000) as box:
        said = box.execute("for i in range(100_000):\n    print('x' * 100)")
        assert len(said) < 1100 and "more characters were printed" in said
        assert len(refused(box, "raise ValueError('y' * 10**6)")) <= 1000


@pytest.mark.parametrize("code", [
    "import posix\nposix.write(1, b'no message\\n')", "import posix\nposix.write(1, b'[1, 2]\\n')",
    "import posix\nposix.write(1, b'{\"is\": \"call\", \"tool\": 3}\\n')",
    "import posix\nposix.write(1, b'{\"is\": \"other\"}\\n')", "import posix\nposix.write(1, b'[' * 100_000 + b'\\n')",
    "import posix\nwhile True: posix.write(1, b'x' * 60_000)",
    "import posix\nposix.write(1, b'\\x80\\x04cos\\nsystem\\n(S\"touch /tmp/escaped\"\\ntR.\\n')",
])
def test_the_pipe_takes_messages_alone(code: str) -> None:
    with PythonInterpreter(timeout=15) as box:
        with pytest.raises(SandboxError, match="P046"):
            box.execute(code)
        assert box.execute("3") == "3\n" and not Path("/tmp/escaped").exists()


def test_forged_calls_reach_no_other_function() -> None:
    with PythonInterpreter({"add": lambda a: a}) as box:
        code = ("import posix, json\n"
                "posix.write(1, json.dumps({'is': 'call', 'tool': '__class__', 'args': [], 'kwargs': {}}).encode() + "
                "b'\\n')\nprint(posix.read(0, 1000))")
        assert "there is no tool" in box.execute(code)


def test_a_process_that_ends_is_noticed() -> None:
    with PythonInterpreter() as box:
        with pytest.raises(CodeError, match="process ended") as caught:
            box.execute("import posix\nposix._exit(0)")
        assert caught.value.state_lost and box.execute("1") == "1\n"


def test_ctrl_c_ends_the_execution_and_nothing_is_left() -> None:
    code = ("import os, signal, threading, time\nfrom tracedsl.programs.sandbox.python import PythonInterpreter\n"
            "box = PythonInterpreter(timeout=60)\nbox.start()\npid = box._process._process.pid\n"
            "threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
            "try:\n    box.execute('while True: pass')\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
            "try:\n    os.kill(pid, 0)\nexcept ProcessLookupError:\n    print('gone')\nprint(box.execute('7'))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["interrupted", "gone", "7"], done.stderr


def test_the_process_ends_with_its_owner() -> None:
    box = PythonInterpreter()
    box.start()
    assert box._process is not None
    pid = box._process._process.pid
    os.kill(pid, 0)
    del box
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_where_there_is_no_wall_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tracedsl.programs.sandbox import python

    folder = tmp_path / "copy"
    folder.mkdir()
    source = Path(python.__file__).parent
    (folder / "worker.py").write_text((source / "worker.py").read_text())
    weak = (source / "lockdown.py").read_text().replace('"x86_64": (0,', '"other": (0,').replace('"aarch64"', '"no"')
    (folder / "lockdown.py").write_text(weak)
    monkeypatch.setattr(python, "_WORKER", folder / "worker.py")
    with pytest.raises(SandboxError, match="cannot be locked in"):
        PythonInterpreter().execute("1")
    with PythonInterpreter(require_confinement=False) as box:
        assert box.execute("1") == "1\n" and "syscalls" not in box.walls
    (folder / "worker.py").write_text("raise SystemExit('broken')")
    with pytest.raises(SandboxError, match="broken"):
        PythonInterpreter().start()


def test_ctrl_c_in_the_terminal_does_not_reach_it(box: PythonInterpreter) -> None:
    box.start()
    assert box._process is not None and os.getsid(box._process._process.pid) != os.getsid(0)
