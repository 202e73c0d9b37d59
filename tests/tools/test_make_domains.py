import subprocess
import sys
from pathlib import Path

from pkgllm.shipped import domains_folder

ROOT = Path(__file__).parents[2]


def test_the_shipped_domains_are_what_the_script_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.make_domains", "--output", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(made) == {"cat_videos.json", "tomato_recipes.json"}
    assert made == {path.name: path.read_bytes() for path in domains_folder().iterdir()}
