"""Handing over: the import files of the newest diff set are written for a person to upload.

For a day on which the file server cannot be used. What is released, and what is withdrawn at the
last look, is as in `delivering`; what the API carries stays with it.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from vibes_pipelines.delivery import release
from vibes_pipelines.delivery.file_import import lane_of
from vibes_pipelines.delivery.hand_over import HandedOver, Tell, hand_over, others_in
from vibes_pipelines.stages.erase_lock import not_while_erasing
from vibes_pipelines.stages.last_look import LastLook
from vibes_pipelines.stages.planning import Options, planned_lane, reason_of, verdict_of
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import NotReconciledError
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.records import Lane

_LANES: tuple[Lane, ...] = ("opt_outs", "persons")


@dataclass(frozen=True)
class ForUpload:
    """The files of one day by lane, opt-outs first, and why each other lane may not leave.

    `old` are import files in the folder that are of no lane that may leave, or of another diff set.
    `in_real_time` says that changes of the CRM may be carried while the files are not uploaded yet.
    """

    day: str
    lanes: Mapping[Lane, HandedOver]
    held: Mapping[Lane, str] = field(default_factory=dict)
    old: tuple[Path, ...] = ()
    in_real_time: bool = False


@not_while_erasing
def hand_over_files(
    project: Project,
    folder: Path,
    *,
    also_begun: bool = False,
    tell: Tell = lambda _: None,
) -> ForUpload:
    """Writes the files of every lane that may leave into `folder`; the ledger has them as sent.

    `also_begun` and `tell` are as in `hand_over`.

    Raises:
        NotReconciledError: there is no diff set.
        DiffSetSuperseded: a newer one was registered meanwhile.
        ReplayMismatch: a file would not do what was planned.
        ImportFileError, ImportFileUnwritable: a file, or the folder, cannot be written.
        LaneBusy: a delivery uploads files of a lane now.
    """
    newest = project.ledger.newest_diff_set()
    if newest is None:
        raise NotReconciledError("there is no diff set; run the reconcile first")
    verdicts = {lane: verdict_of(project, newest.diff_set, lane) for lane in _LANES}
    held = {lane: reason_of(one) for lane, one in verdicts.items() if not one.allowed}
    lanes = {
        lane: _hand_over(project, newest.day, lane, folder, tell, also_begun=also_begun)
        for lane in _LANES
        if lane not in held
    }
    release.accept_if_delivered(project.ledger, newest.diff_set)
    good = {file.path for one in lanes.values() for file in (*one.before, *one.files)}
    return ForUpload(
        day=newest.day,
        lanes=lanes,
        held=held,
        old=others_in(folder, good),
        in_real_time=project.config.contacts.changes is not None,
    )


def _hand_over(
    project: Project, day: str, lane: Lane, folder: Path, tell: Tell, *, also_begun: bool
) -> HandedOver:
    planned = planned_lane(project, day, lane, Options(dry_run=False))
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        return hand_over(
            [batch for batch in planned.batches if lane_of(batch) == lane],
            folder,
            project.ledger,
            {mapped.to: mapped.type for mapped in project.config.fields},
            project.work_folder(day),
            watch=LastLook(project, inbox),
            also_begun=also_begun,
            tell=tell,
        )
