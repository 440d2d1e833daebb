"""Tables that are imported, and archives."""

import io
import tarfile

import lance

from lance_lightning.cli.command import main


def imported(source, tmp_path, *options):
    """Run the command and return the dataset."""
    target = tmp_path / "out" / "rows.lance"
    assert main(["import", str(source), str(target), *options]) == 0
    assert [path.name for path in target.parent.iterdir()] == ["rows.lance"]
    dataset = lance.dataset(target)
    assert dataset.version == 1
    return dataset


def write_tar(path, samples):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, content in samples:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
