"""What happens on the page: from a ticket, or the passing of time, to what is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
from deepfake_client import Failure

from . import batch_markup, markup
from .classification import Answer, Classifier
from .limits import MAX_IMAGES
from .served_model import ServedModelWatch


class Events:
    """Methods for gradio to call, in threads of its own. `shown` is the status that a visitor's page shows already."""

    def __init__(self, classifier: Classifier, watch: ServedModelWatch) -> None:
        self._classifier = classifier
        self._watch = watch

    def look(self, shown: str) -> tuple[Any, str]:
        """Status and `shown`. What has not changed is left alone, or it would be read aloud again."""
        status = markup.model_status(self._watch.look())
        return (gr.skip() if status == shown else status), status

    def one(self, ticket: str | None) -> tuple[Any, ...]:
        """Verdict, status, `shown`, and the input, which is emptied."""
        if ticket is None:
            return gr.skip(), gr.skip(), gr.skip(), None
        answer = self._classifier.classify(ticket)
        served = self._watch.ask()
        status = markup.model_status(served)
        return markup.verdict_card(answer, served), status, status, None

    def several(self, tickets: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Verdicts, status, `shown`, and the input; how far it is, until the last of them has come."""
        if len(tickets) > MAX_IMAGES:
            yield batch_markup.too_many(len(tickets)), gr.skip(), gr.skip(), None
            return
        answers: list[Answer] = []
        yield batch_markup.progress(0, len(tickets)), gr.skip(), gr.skip(), gr.skip()
        for answer in self._classifier.classify_many(tickets):
            answers.append(answer)
            yield batch_markup.progress(len(answers), len(tickets)), gr.skip(), gr.skip(), gr.skip()
        served = self._watch.ask()
        status = markup.model_status(served)
        yield batch_markup.batch_results(answers, served), status, status, None

    def predict(self, image: str | None) -> dict[str, float]:
        """The score of each label, for programs."""
        if image is None:
            raise gr.Error("no image was given", print_exception=False)
        result = self._classifier.classify(image).result
        if isinstance(result, Failure):
            raise gr.Error(str(result.error), print_exception=False)
        return dict(result.scores)
