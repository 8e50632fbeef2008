"""Half-done runs of another prompt, version or engine."""

from __future__ import annotations

import subprocess
import sys

import pytest
from msgspec.structs import replace

from tests.cli.command import demo, one_open_run
from vendomini.cluster.tasks import encoded, root, write_tasks
from vendomini.config import load_config
from vendomini.records import Manifest, Shard, ShardArray, write_record


class TestAnotherVersion:
    """A half-done run goes on under the prompt, version and engine that began it, or not at all."""

    @pytest.fixture
    def half_done(self, tmp_path):
        results, run_id = one_open_run(tmp_path)
        steps = results.run(run_id).steps
        whole = steps.read_bytes()
        steps.write_bytes(b"".join(whole.splitlines(keepends=True)[:7]))
        return results, run_id, whole

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"system_prompt": "Another."}, "begun under another system prompt: it is left alone"),
            ({"prompt_head": "<s>"}, "another beginning of its prompts: it is"),
            ({"reply_format": "harmony"}, "another reply format (harmony, now "),
            ({"made_with": {}}, "another version (not recorded, now 0."),
            ({"code": "0" * 16}, f"another code ({'0' * 16}, now "),
            ({"engine": "hf"}, "another engine (hf, now scripted)"),
            ({"context length": 512}, "another context length (512, now "),
            ({"chat template": "1" * 16}, "another chat template ("),
        ],
    )
    def test_is_refused_by_name_or_begun_anew(self, half_done, changed, named):
        results, run_id, whole = half_done
        files = results.run(run_id)
        info = results.info(run_id)
        fields = {name: value for name, value in changed.items() if hasattr(info, name)}
        fields.setdefault("made_with", info.made_with | {k: v for k, v in changed.items() if k not in fields})
        write_record(files.info, replace(info, **fields))
        before = files.steps.read_bytes()
        done = demo(results.root, "--limit", "1")
        assert (done.returncode, done.stderr) == (1, "")
        assert f"[WARNING] {run_id} was " in done.stdout
        assert named in done.stdout
        assert "--restart-changed" in done.stdout
        assert files.steps.read_bytes() == before
        done = demo(results.root, "--limit", "1", "--restart-changed")
        assert done.returncode == 0, done.stdout
        assert files.steps.read_bytes() == whole
        assert (files.folder / "steps.1.jsonl").read_bytes() == before
        assert results.summary(run_id).attempt == 2

    @pytest.mark.parametrize("restart", [False, True])
    def test_a_job_does_as_it_was_sent(self, half_done, restart):
        results, run_id, whole = half_done
        info = results.info(run_id)
        write_record(results.run(run_id).info, replace(info, system_prompt="Another."))
        phase = load_config("configs/demo.yaml", ["simulation.max_steps=20", "experiment.replications=1"])
        shards = [ShardArray(job_name="job", gpus=0, shards=[Shard(model="m", run_ids=[run_id], seconds=1)])]
        config = phase.config.model_dump(mode="json")
        manifest = Manifest(
            id="sent", name="demo", config=config, created_at="", retries=0, arrays=shards, restart_changed=restart
        )
        write_tasks(results, manifest)
        command = [results.submissions / "sent", root(encoded(manifest, 0)), "0"]
        done = subprocess.run([sys.executable, "-m", "vendomini.cluster.job", *command], capture_output=True, text=True)
        assert (done.returncode, "another system prompt" in done.stdout) == ((0, False) if restart else (1, True))
        assert (results.run(run_id).steps.read_bytes() == whole) == restart

    def test_goes_on_where_nothing_changed(self, half_done):
        results, run_id, whole = half_done
        assert demo(results.root, "--limit", "1", "--restart-changed").returncode == 0
        assert results.run(run_id).steps.read_bytes() == whole
        assert not (results.run(run_id).folder / "steps.1.jsonl").exists()

    def test_edited_code_is_another_version(self):
        code = (
            "import shutil, sys, tempfile, pathlib, vendomini\n"
            "place = pathlib.Path(tempfile.mkdtemp()) / 'vendomini'\n"
            "shutil.copytree(pathlib.Path(vendomini.__file__).parent, place)\n"
            "sys.argv[1:] and (place / sys.argv[1]).open('a').write('# edited\\n')\n"
            "for name in [name for name in sys.modules if name.startswith('vendomini')]: del sys.modules[name]\n"
            "sys.path.insert(0, str(place.parent))\n"
            "from vendomini.runner.provenance import versions; print(versions()['code'])\n"
            "shutil.rmtree(place.parent)"
        )

        def digest(*edited):
            return subprocess.check_output([sys.executable, "-c", code, *edited], text=True).strip()

        same = digest()
        assert (len(same), digest(), digest("analysis/__init__.py")) == (16, same, same)
        assert same not in (digest("agent/prompt.py"), digest("measures/detectors.py"))
