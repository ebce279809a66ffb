"""docs/share.md: a remote gives a fresh clone its trained models, and `dvc gc` keeps what is in use."""

import shutil
from pathlib import Path

import pytest

from tests.examples import compared, renewed, shared
from tests.project import must


@pytest.mark.slow
def test_the_page_s_commands_share_a_model(root: Path, tmp_path: Path) -> None:
    project = shared(tmp_path / "mtbert")
    checkpoint = project / ".mtbert" / ("a" * 24) / "latest.json"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    page = (root / "docs/share.md").read_text(encoding="utf-8")
    fresh = renewed(page, project)
    assert fresh.count("Data and pipelines are up to date.") == 2, "in the clone, and after dvc gc"
    assert compared(fresh) == compared(page), "run `python -m tests.examples --write`"
    assert checkpoint.exists()
    trained, pulled = (folder / "models/best_performance" for folder in (project, tmp_path / "clone"))
    assert {path.name for path in pulled.iterdir()} == {path.name for path in trained.iterdir()} >= {"README.md"}
    pushed = {path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()}
    assert (trained / "model.safetensors").read_bytes() in pushed
    rows = [row for file in project.glob("data/raw/*.csv") for row in file.read_bytes().splitlines()[1:]]
    assert not [row for row in rows if row.split(b"\t")[2] in b"".join(pushed)], "no sentence goes with the models"


@pytest.mark.slow
def test_a_remote_on_s3(tmp_path: Path) -> None:
    pytest.importorskip("dvc_s3")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "any")
        (tmp_path / "model").write_bytes(b"weights")
        bucket = f"import boto3; boto3.client('s3', endpoint_url='{address}', region_name='us-east-1').create_bucket(Bucket='models')"
        for command in (
            ["python", "-c", bucket],
            ["dvc", "init", "--quiet", "--no-scm"],
            ["dvc", "add", "--quiet", "model"],
            ["dvc", "remote", "add", "--default", "store", "s3://models/mtbert"],
            ["dvc", "remote", "modify", "store", "endpointurl", address],
            ["dvc", "push", "--quiet"],
        ):
            must(tmp_path, *command, **keys)
        (tmp_path / "model").unlink()
        shutil.rmtree(tmp_path / ".dvc/cache")
        must(tmp_path, "dvc", "pull", "--quiet", **keys)
    finally:
        server.stop()
    assert (tmp_path / "model").read_bytes() == b"weights"
