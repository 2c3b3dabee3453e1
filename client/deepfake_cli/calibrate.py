"""`deepfake calibrate`."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import click
from deepfake_client.preprocessing import Decoding

from .console import fail, image_bar, say, tell
from .evaluate import evaluation_errors
from .options import GivenPath, Server, concurrency_option, decoding_option, server_options


@click.command()
@click.argument("folder", metavar="DIR", type=GivenPath())
@server_options
@click.option(
    "--output",
    type=GivenPath(),
    default=Path("policy.json"),
    show_default=True,
    metavar="FILE",
    help="Policy to write. The server's answers are kept beside it, for the next run.",
)
@click.option(
    "--false-positive-rate",
    "rate",
    type=click.FloatRange(0, 0.5, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Highest share of photos that may be called Deepfake, and of deepfakes that may be called Real one.",
)
@concurrency_option
@decoding_option
def command(folder: Path, server: Server, output: Path, rate: float, concurrency: int, decoding: Decoding) -> None:
    """Fit a decision policy to the images in DIR, one folder for each label.

    Exits with 1 when some files got no verdict; the policy is then fitted to the others.
    """
    from deepfake_evaluation.folder import require_folders
    from deepfake_evaluation.policy import calibrate, require_enough, require_labels
    from deepfake_evaluation.run import open_run

    if math.isnan(rate):
        raise click.UsageError("--false-positive-rate is not a number")
    if output.is_dir():
        fail(f"{output}: a folder; name a file with --output", status=2)
    with evaluation_errors():
        require_folders(folder, output)
        with server.ready_client(decoding=decoding) as client:
            beside = output.with_name(f"{output.name}.answers.jsonl")
            with open_run(client, folder, beside, concurrency=concurrency, decoding=decoding) as run:
                require_labels(run.model)
                for label in run.folder.labels:
                    require_enough(label, run.folder.count(label), rate)
                for note in run.notes:
                    say(note)
                with image_bar("Classifying", len(run.folder.files)) as advance:
                    predictions = run.classify(advance)
                policy, report = calibrate(predictions, run.model, rate)
    try:
        policy.save(output)
    except OSError as error:
        fail(f"{output}: cannot be written ({error.strerror}); what was there is unchanged")
    for line in (run.model.weights_note, run.model.describe(), report, f"Wrote {output}"):
        if line:
            tell(line)
    unread = [each for each in predictions if each.scores is None]
    for each in unread:
        say(f"left out: {folder / each.file}: {each.error}")
    sys.exit(1 if unread else 0)
