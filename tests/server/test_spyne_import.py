"""spyne is imported on every Python, without a word and without a trace."""

import subprocess
import sys


def test_spyne_is_imported_without_a_warning_and_leaves_no_old_hook() -> None:
    """On each Python: no warning as an error, no import hook of spyne's left."""
    program = (
        "import sys, cdb_server.soap\n"
        "import spyne.util.six.moves.collections_abc as moved, collections.abc\n"
        "assert moved.Mapping is collections.abc.Mapping\n"
        "assert not [f for f in sys.meta_path if type(f).__module__ == 'spyne.util.six']\n"
        "import colorsys\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
