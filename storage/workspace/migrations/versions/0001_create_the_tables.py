"""create the tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply the change."""
    _create_audit_log()
    _create_rounds()
    _create_users()
    _create_logins()
    _create_tasks()
    _create_assignments()
    _create_branches()
    _create_given_masks()
    _create_leases()
    _create_operations()
    _create_slots()
    _create_submissions()
    _create_verdicts()


def _create_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_log")),
    )


def _create_rounds() -> None:
    op.create_table(
        "rounds",
        sa.Column("round_id", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("guidelines", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("closed_at", sa.Double(), nullable=True),
        sa.Column("plan_id", sa.Text(), nullable=False, comment="plan of the masks; empty until the round is closed"),
        sa.CheckConstraint("stage IN ('assisted_manual', 'semi_automatic')", name=op.f("ck_rounds_stage")),
        sa.CheckConstraint(
            "state IN ('open', 'paused', 'closing', 'closed', 'cancelled')", name=op.f("ck_rounds_state")
        ),
        sa.PrimaryKeyConstraint("round_id", name=op.f("pk_rounds")),
    )


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False, comment="argon2id; empty: no password opens the account"),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("role IN ('annotator', 'reviewer', 'lead')", name=op.f("ck_users_role")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_users")),
    )


def _create_logins() -> None:
    op.create_table(
        "logins",
        sa.Column("token_sha256", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["user_name"], ["users.name"], name=op.f("fk_logins_user_name")),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_logins")),
    )


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("round_id", sa.Text(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, comment="place in the order in which images were chosen"),
        sa.Column("gold", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.round_id"], name=op.f("fk_tasks_round_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
    )
    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.create_index("uq_tasks_round_id_image_id", ["round_id", "image_id"], unique=True)


def _create_assignments() -> None:
    op.create_table(
        "assignments",
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("annotator", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False, comment="operations of the annotator's main line"),
        sa.Column("reason", sa.Text(), nullable=False, comment="why the task was skipped or sent back"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "state IN ('working', 'submitted', 'skipped', 'sent_back')", name=op.f("ck_assignments_state")
        ),
        sa.ForeignKeyConstraint(["annotator"], ["users.name"], name=op.f("fk_assignments_annotator")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_assignments_task_id")),
        sa.PrimaryKeyConstraint("task_id", "annotator", name=op.f("pk_assignments")),
    )
    with op.batch_alter_table("assignments", schema=None) as batch_op:
        batch_op.create_index("ix_assignments_annotator", ["annotator"], unique=False)


def _create_branches() -> None:
    op.create_table(
        "branches",
        sa.Column("branch", sa.Text(), nullable=False),
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("annotator", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("fork_revision", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("state IN ('open', 'merged', 'dismissed')", name=op.f("ck_branches_state")),
        sa.ForeignKeyConstraint(["annotator"], ["users.name"], name=op.f("fk_branches_annotator")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_branches_task_id")),
        sa.PrimaryKeyConstraint("branch", name=op.f("pk_branches")),
    )
    with op.batch_alter_table("branches", schema=None) as batch_op:
        batch_op.create_index("ix_branches_task_id_annotator", ["task_id", "annotator"], unique=False)


def _create_given_masks() -> None:
    op.create_table(
        "given_masks",
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "purpose", sa.Text(), nullable=False, comment="prefill: shown to the annotator; gold: compared in secret"
        ),
        sa.Column("mask", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.CheckConstraint("purpose IN ('prefill', 'gold')", name=op.f("ck_given_masks_purpose")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_given_masks_task_id")),
        sa.PrimaryKeyConstraint("task_id", "purpose", "mask", name=op.f("pk_given_masks")),
    )


def _create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("annotator", sa.Text(), nullable=False),
        sa.Column("granted_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False, comment="empty while the lease lasts"),
        sa.ForeignKeyConstraint(["annotator"], ["users.name"], name=op.f("fk_leases_annotator")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_leases_task_id")),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_leases")),
    )
    with op.batch_alter_table("leases", schema=None) as batch_op:
        batch_op.create_index("ix_leases_annotator", ["annotator"], unique=False)
        batch_op.create_index("ix_leases_task_id", ["task_id"], unique=False)


def _create_operations() -> None:
    op.create_table(
        "operations",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="order in which the workspace stored the operations",
        ),
        sa.Column("op_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("annotator", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("base_revision", sa.Integer(), nullable=False),
        sa.Column("branch", sa.Text(), nullable=False, comment="empty: the annotator's main line"),
        sa.Column("revision", sa.Integer(), nullable=False, comment="revision of the line after the operation"),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("client_time", sa.Double(), nullable=False),
        sa.Column("server_time", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["annotator"], ["users.name"], name=op.f("fk_operations_annotator")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_operations_task_id")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_operations")),
    )
    with op.batch_alter_table("operations", schema=None) as batch_op:
        batch_op.create_index("ix_operations_task_id_annotator", ["task_id", "annotator", "number"], unique=False)
        batch_op.create_index("uq_operations_op_id", ["op_id"], unique=True)
        batch_op.create_index(
            "uq_operations_revision",
            ["task_id", "annotator", "branch", "revision"],
            unique=True,
            sqlite_where=sa.text("kind NOT IN ('activity', 'note')"),
            postgresql_where=sa.text("kind NOT IN ('activity', 'note')"),
        )


def _create_slots() -> None:
    op.create_table(
        "slots",
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("annotator", sa.Text(), nullable=True, comment="who holds or last held the slot"),
        sa.Column("token", sa.Text(), nullable=True, comment="token of the lease; NULL: no lease"),
        sa.Column(
            "expires_at", sa.Double(), nullable=True, comment="end of the lease or of a reservation for the annotator"
        ),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("round_id", sa.Text(), nullable=False, comment="of the task, for the index"),
        sa.Column("rank", sa.Integer(), nullable=False, comment="minus the task's priority, for the index"),
        sa.Column("position", sa.Integer(), nullable=False, comment="of the task, for the index"),
        sa.ForeignKeyConstraint(["annotator"], ["users.name"], name=op.f("fk_slots_annotator")),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.round_id"], name=op.f("fk_slots_round_id")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_slots_task_id")),
        sa.PrimaryKeyConstraint("task_id", "slot", name=op.f("pk_slots")),
    )
    with op.batch_alter_table("slots", schema=None) as batch_op:
        batch_op.create_index("ix_slots_annotator", ["annotator"], unique=False)
        batch_op.create_index(
            "ix_slots_next",
            ["round_id", "rank", "position", "task_id", "slot"],
            unique=False,
            sqlite_where=sa.text("done = 0"),
            postgresql_where=sa.text("NOT done"),
        )
        batch_op.create_index("uq_slots_task_id_annotator", ["task_id", "annotator"], unique=True)


def _create_submissions() -> None:
    op.create_table(
        "submissions",
        sa.Column("submission_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("annotator", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("submitted_at", sa.Double(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("masks", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "state IN ('submitted', 'accepted', 'sent_back', 'withdrawn')", name=op.f("ck_submissions_state")
        ),
        sa.ForeignKeyConstraint(["annotator"], ["users.name"], name=op.f("fk_submissions_annotator")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_submissions_task_id")),
        sa.PrimaryKeyConstraint("submission_id", name=op.f("pk_submissions")),
    )
    with op.batch_alter_table("submissions", schema=None) as batch_op:
        batch_op.create_index("ix_submissions_task_id", ["task_id"], unique=False)
        batch_op.create_index("uq_submissions_token", ["token"], unique=True)


def _create_verdicts() -> None:
    op.create_table(
        "verdicts",
        sa.Column("verdict_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("submission_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("mask", sa.Text(), nullable=False, comment="empty: the verdict is about the whole image"),
        sa.Column("reviewer", sa.Text(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("answer IN ('yes', 'no', 'unsure')", name=op.f("ck_verdicts_answer")),
        sa.CheckConstraint("question IN ('mask_good', 'nothing_missing')", name=op.f("ck_verdicts_question")),
        sa.ForeignKeyConstraint(["reviewer"], ["users.name"], name=op.f("fk_verdicts_reviewer")),
        sa.ForeignKeyConstraint(
            ["submission_id"], ["submissions.submission_id"], name=op.f("fk_verdicts_submission_id")
        ),
        sa.PrimaryKeyConstraint("verdict_id", name=op.f("pk_verdicts")),
    )
    with op.batch_alter_table("verdicts", schema=None) as batch_op:
        batch_op.create_index("ix_verdicts_submission_id", ["submission_id"], unique=False)
