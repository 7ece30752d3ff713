"""Pushing to the Hub: the model, its card and its results, and nothing that tells of the machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, HfApi, get_token
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress

from hf_logitmix._version import __version__
from hf_logitmix.hub.publishing import CHECKPOINT, MODEL, publish
from hf_logitmix.models import unwrap

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object

logger = logging.getLogger(__name__)


class PushMixin(_Base):
    """Pushes copies that are fit to be published (`hf_logitmix.hub.publishing`), whichever way a push is asked for.

    Trainer pushes all of ``output_dir``, and writes ``training_args.bin`` there before it does: a pickle with the token
    and the paths of `TrainingArguments`. Here that file is neither kept nor pushed, and one that an earlier push left
    in the repository is deleted. What else stays behind is named in the log, as is a push in the background that
    failed; it ends no training, and ``output_dir`` still holds everything.
    """

    @cached_property
    def _hub(self) -> HfApi:
        return HfApi(library_name="hf_logitmix", library_version=__version__)

    @cached_property
    def _said(self) -> set[str]:
        return set()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        (Path(output_dir or str(self.args.output_dir)) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """As `Trainer.push_to_hub`, without what is not fit to be published.

        Raises:
            ValueError: for a file that holds the token.
        """
        args, output = self.args, Path(str(self.args.output_dir))
        self.callback_handler.on_push_begin(args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, **({} if private is None else {"private": private}))
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        if own := getattr(self.model, "model_tags", None):
            given = kwargs.get("tags") or []
            kwargs["tags"] = list(dict.fromkeys([*([given] if isinstance(given, str) else given), *own]))
        kwargs.setdefault("model_name", (args.hub_model_id or output.name).split("/")[-1])
        self.create_model_card(**kwargs)
        self._finish_current_push()
        upload = self._staged(output, MODEL, str(commit_message), token=token, revision=revision)
        return upload() if blocking else self._hub.run_as_future(upload)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        args, strategy, folder = self.args, HubStrategy(self.args.hub_strategy), Path(checkpoint_folder)
        if not self.is_world_process_zero() or strategy == HubStrategy.END:
            return
        before: Any = self.push_in_progress
        is_busy = before is not None and not before.is_done()
        if is_busy and not args.hub_always_push:
            return  # as Trainer does
        self.callback_handler.on_push_begin(args, self.state, self.control)
        message = f"Training in progress, step {self.state.global_step}"
        try:
            uploads = [self._staged(folder, MODEL, message)]
            if strategy != HubStrategy.EVERY_SAVE:
                to = "last-checkpoint" if strategy == HubStrategy.CHECKPOINT else folder.name
                uploads.append(self._staged(folder, CHECKPOINT, f"{message}, checkpoint", to=to))
        except (ValueError, OSError) as error:
            self._say_failed(message, error)
            return
        jobs: Any = [self._hub.run_as_future(self._in_background, upload, message) for upload in uploads]
        if is_busy:
            before.jobs.extend(jobs)
        else:
            self.push_in_progress: Any = PushInProgress(jobs)

    def _staged(
        self,
        folder: Path,
        patterns: tuple[str, ...],
        message: str,
        *,
        to: str = "",
        token: str | None = None,
        revision: str | None = None,
    ) -> Callable[[], CommitInfo]:
        """Copy what is to be pushed, so that training may go on and checkpoints be deleted; what returns pushes it."""
        args, repo = self.args, str(self.hub_model_id)
        token, revision = token or args.hub_token, revision or args.hub_revision
        own = getattr(self.processing_class, "vocab_files_names", {}).values()
        copies = TemporaryDirectory(prefix="_push-", dir=args.output_dir)
        try:
            left = publish(folder, Path(copies.name), (*patterns, *own), self._places(), token or get_token())
        except BaseException:
            copies.cleanup()
            raise
        if left and to:
            self._say_once(
                f"checkpoints are pushed to {repo} without {', '.join(left)}: a run that goes on from there starts its "
                "optimizer and schedule anew."
            )
        elif left and folder == Path(str(args.output_dir)):
            self._say_once(f"not pushed to {repo}, as they are no part of the model: {', '.join(left)}.")

        def upload() -> CommitInfo:
            with copies as content:
                old = [] if to else self._old_arguments(repo, token, revision)
                return self._hub.upload_folder(
                    repo_id=repo,
                    folder_path=content,
                    path_in_repo=to,
                    commit_message=message,
                    token=token,
                    revision=revision,
                    delete_patterns=["*"] if to else old or None,
                )

        return upload

    def _old_arguments(self, repo: str, token: str | None, revision: str | None) -> list[str]:
        names = self._hub.list_repo_files(repo, revision=revision, token=token)
        old = [name for name in names if PurePath(name).name == TRAINING_ARGS_NAME]
        if old:
            logger.warning(
                "%s holds %s of an earlier push: deleted, but still in the repository's history; if hub_token was set "
                "then, revoke that token.",
                repo,
                ", ".join(old),
            )
        return old

    def _in_background(self, upload: Callable[[], CommitInfo], message: str) -> CommitInfo:
        try:
            return upload()
        except Exception as error:
            self._say_failed(message, error)
            raise

    def _say_failed(self, message: str, error: Exception) -> None:
        logger.warning(
            "%r was not pushed to %s (%s: %s): it is in %s, and push_to_hub() pushes again.",
            message,
            self.hub_model_id,
            type(error).__name__,
            error,
            self.args.output_dir,
        )

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            logger.warning(line)

    def _places(self) -> list[str]:
        model: Any = self.model
        parts = (getattr(unwrap(model), "config", None), self.processing_class)
        names = [str(getattr(part, "name_or_path", "")) for part in parts]
        return [
            *(str(Path(str(place)).absolute()) for place in (Path.home(), Path.cwd(), self.args.output_dir)),
            *(name for name in names if Path(name).is_absolute()),
        ]
