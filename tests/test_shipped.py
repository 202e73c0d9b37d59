import importlib.util
import shutil
import tomllib
from pathlib import Path
from types import ModuleType

from pkgllm import shipped

CHECKOUT = Path(__file__).parents[1]


def loaded_from(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("shipped_elsewhere", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_checkout_has_its_presets_and_its_small_world() -> None:
    assert (shipped.presets_folder() / "quickstart.yaml").is_file()
    assert (shipped.domains_folder() / "cat_videos.json").is_file()
    world = shipped.small_world_folder()
    assert (world / "redial" / "train_data.jsonl").is_file()
    assert (world / "base-tiny" / "config.json").is_file()


def test_a_wheel_has_them_inside_the_package(tmp_path: Path) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    package = tmp_path / "site-packages" / "pkgllm"
    package.mkdir(parents=True)
    shutil.copy(Path(shipped.__file__), package)
    for source, target in wheel["force-include"].items():
        assert (CHECKOUT / source).is_dir()
        (package.parent / target).mkdir()
    installed = loaded_from(package / "shipped.py")
    assert installed.presets_folder() == package / "presets"
    assert installed.small_world_folder() == package / "small_world_data"
    assert installed.domains_folder() == package / "domains_data"


def test_without_them_in_the_package_the_checkout_around_it_is_used(tmp_path: Path) -> None:
    package = tmp_path / "src" / "pkgllm"
    package.mkdir(parents=True)
    shutil.copy(Path(shipped.__file__), package)
    copied = loaded_from(package / "shipped.py")
    assert copied.presets_folder() == tmp_path / "configs"
    assert copied.small_world_folder() == tmp_path / "data" / "small_world"
