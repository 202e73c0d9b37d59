"""Packages that add choices, written as an installer leaves them: modules and a metadata folder."""

from collections.abc import Mapping
from pathlib import Path


def write_plugin(
    folder: Path, modules: Mapping[str, str], choices: Mapping[str, Mapping[str, str]]
) -> Path:
    """Write a package ``tiny-plugin`` into a folder that can stand on ``sys.path``.

    Args:
        folder: To make.
        modules: Source by module name.
        choices: ``"module:Class"`` by name, by entry point group such as ``pkgllm.objectives``.
    """
    folder.mkdir(parents=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    metadata = folder / "tiny_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-plugin\nVersion: 1.0\n")
    sections = (
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in named.items())
        for group, named in choices.items()
    )
    (metadata / "entry_points.txt").write_text("\n".join(sections))
    return folder
