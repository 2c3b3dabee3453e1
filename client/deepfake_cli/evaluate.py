"""`deepfake evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from deepfake_client import DecisionPolicy, DeepfakeError
from deepfake_client.preprocessing import Decoding

from .console import INTERRUPTED, StepProgress, fail, image_bar, say, tell, writable_stdout
from .options import GivenPath, Server, concurrency_option, decoding_option, file_option, server_options

if TYPE_CHECKING:
    from deepfake_deploy.export import Progress
    from deepfake_evaluation.reference import Reference
    from deepfake_evaluation.run import EvaluationRun


@click.command()
@click.argument("images", metavar="DIR", type=GivenPath())
@server_options
@click.option(
    "--output",
    type=GivenPath(),
    default=Path("evaluation"),
    show_default=True,
    metavar="OUT",
    help="Folder for the report, the tables and the plots.",
)
@click.option(
    "--robustness", is_flag=True, help="Measure again under JPEG, scaling, blur, noise, crop and screenshots."
)
@file_option("--policy", "Measure the decisions of this policy as well.", "policy_file")
@click.option("--reference", is_flag=True, help="Compare with the model card's own code, on this machine.")
@click.option(
    "--reference-model",
    metavar="ID_OR_DIR",
    help="Compare with this one; by default with the one that the server's provenance names.",
)
@concurrency_option
@decoding_option
def command(
    images: Path,
    server: Server,
    output: Path,
    robustness: bool,
    policy_file: Path | None,
    reference: bool,
    reference_model: str | None,
    concurrency: int,
    decoding: Decoding,
) -> None:
    """Measure how good the served model is on a folder of labelled images.

    DIR has one folder for each label, `Deepfake` and `Real one`, with images anywhere below. An evaluation that was
    interrupted goes on where it stopped when it is run again. Exits with 0 when every file could be measured, with 1
    when some could not or there is no report (the server is away, the disk is full), with 2 when the folders or the
    policy cannot be used.
    """
    from deepfake_evaluation.folder import require_folders
    from deepfake_evaluation.report import ANSWERS
    from deepfake_evaluation.run import open_run

    if reference_model is not None and not reference_model:
        raise click.UsageError("--reference-model is empty; is a variable not set?")
    try:
        policy = None if policy_file is None else DecisionPolicy.load(policy_file)
    except DeepfakeError as error:
        fail(str(error), status=2)
    with evaluation_errors():
        require_folders(images, output)
        with (
            server.ready_client(decoding=decoding) as client,
            open_run(client, images, output / ANSWERS, concurrency=concurrency, decoding=decoding) as run,
        ):
            compared = _reference(run, reference_model) if reference or reference_model else None
            unmeasured = _evaluate(run, output, policy, compared, robustness=robustness)
    sys.exit(1 if unmeasured else 0)


@contextmanager
def evaluation_errors() -> Iterator[None]:
    """End the command in one line, with 2 where what was given cannot be used."""
    from deepfake_evaluation import EvaluationError, InputError

    try:
        yield
    except InputError as error:
        fail(str(error), status=2)
    except (EvaluationError, DeepfakeError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; what was answered is kept, run the same command again to go on", status=INTERRUPTED)


def _reference(run: EvaluationRun, named: str | None) -> Reference:
    """The model named, else the one that the server's provenance names; loaded before hours of classifying."""
    try:
        from deepfake_deploy.export import ExportError
        from deepfake_evaluation.reference import reference_of
    except ModuleNotFoundError as error:
        fail(f"--reference needs {error.name}; pip install 'deepfake-vs-real[export]'")
    model, revision = (named, None) if named else reference_of(run.model)
    try:
        with StepProgress() as progress:
            return load_reference(model, revision, list(run.model.labels), progress)
    except ExportError as error:
        fail(f"no reference: {error}")


def load_reference(model: str, revision: str | None, labels: list[str], progress: Progress) -> Reference:
    """The checkpoint named by a local folder, a Hub id or "stand-in", in transformers."""
    from deepfake_deploy.export import checkpoint
    from deepfake_deploy.export.contract import check_configuration
    from deepfake_evaluation.reference import Reference

    with checkpoint.open_checkpoint(model, revision, labels, progress) as opened:
        progress.step("Loading the model into transformers")
        check_configuration(opened.folder, labels)
        digests = {path.name: checkpoint.sha256_of(path) for path in checkpoint.weight_files(opened)}
        classifier, processor = checkpoint.load_model(opened), checkpoint.load_processor(opened, backend=None)
    return Reference(opened.model_id, opened.revision, digests, classifier, processor)


def _evaluate(
    run: EvaluationRun, output: Path, policy: DecisionPolicy | None, reference: Reference | None, *, robustness: bool
) -> int:
    """Classify, measure, write the results and print the report; how many files could not be measured."""
    from deepfake_evaluation import report
    from deepfake_evaluation.measures import collect, measure
    from deepfake_evaluation.policy import decide_all, decisions_part, require_fit
    from deepfake_evaluation.report import write_results
    from deepfake_evaluation.robustness import DAMAGES, measure_robustness, robustness_part

    if policy is not None:
        require_fit(policy, run.model)
    for note in run.notes:
        say(note)
    with image_bar("Classifying", len(run.folder.files)) as advance:
        predictions = run.classify(advance)
    sample = collect(predictions, run.model.labels)
    measures = measure(sample)
    parts = [report.classification(sample, measures), report.unreadable(sample, run.folder.left_out)]
    if run.decoding != "exact":
        parts.append(
            report.Part(
                "decoding", run.decoding, f"Images were decoded with --decoding {run.decoding}, damaged ones exactly"
            )
        )
    rows = []
    if robustness:
        with image_bar("Classifying damaged images", sample.images * len(DAMAGES)) as advance:
            rows = measure_robustness(run, predictions, sample, measures, advance)
        parts.append(robustness_part(rows))
    if policy is not None:
        parts.append(decisions_part(decide_all(predictions, run.model, policy), policy))
    if reference is not None:
        from deepfake_evaluation.reference import compare, reference_part

        with image_bar("Asking transformers", len(predictions)) as advance:
            comparison = compare(predictions, run.folder.path, reference.probabilities, advance)
        parts.append(reference_part(run.model, reference, comparison))
    write_results(output, run.model, predictions, sample, measures, rows, parts)
    paragraphs = [report.heading(run.model, sample), *(part.text for part in parts), f"Written to {output}"]
    writable_stdout()
    tell("\n\n".join(filter(None, paragraphs)))
    return len(sample.unreadable) + sum(len(row.failed) for row in rows)
