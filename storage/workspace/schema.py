"""Tables of the workspace. Migrations, not this file, create them; a test holds the two together.

A task is one image of one round. It has as many slots as annotators are to see it; claiming takes a slot. What an
annotator does is a row of `operations`, which is never changed; everything else about masks is computed from them.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

from storage.workspace.columns import UtcTime

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only INTEGER PRIMARY KEY by itself

USERS = Table(
    "users",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("password_hash", Text, nullable=False, comment="argon2id; empty: no password opens the account"),
    Column("disabled", Boolean, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    CheckConstraint("role IN ('annotator', 'reviewer', 'lead')", name="role"),
)

LOGINS = Table(
    "logins",
    METADATA,
    Column("token_sha256", Text, primary_key=True),
    Column("user_name", Text, ForeignKey(USERS.c.name), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)

ROUNDS = Table(
    "rounds",
    METADATA,
    Column("round_id", Text, primary_key=True),
    Column("stage", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("guidelines", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("closed_at", UtcTime),
    Column("plan_id", Text, nullable=False, comment="plan of the masks; empty until the round is closed"),
    CheckConstraint("stage IN ('assisted_manual', 'semi_automatic')", name="stage"),
    CheckConstraint("state IN ('open', 'paused', 'closing', 'closed', 'cancelled')", name="state"),
)

REQUESTS = Table(
    "requests",
    METADATA,
    Column("request_id", Text, primary_key=True, comment="UUID that the client made"),
    Column("action", Text, nullable=False),
    Column(
        "round_id",
        Text,
        ForeignKey(ROUNDS.c.round_id),
        nullable=False,
        comment="round that the request opened or extended",
    ),
    Column("content", JSON, nullable=False, comment="what the client asked for"),
    Column("tasks", Integer, nullable=False, comment="images that the round got by the request"),
    Column("created_at", UtcTime, nullable=False),
    CheckConstraint("action IN ('open round', 'extend round')", name="action"),
)

TASKS = Table(
    "tasks",
    METADATA,
    Column("task_id", _NUMBER, primary_key=True),
    Column("round_id", Text, ForeignKey(ROUNDS.c.round_id), nullable=False),
    Column("image_id", BigInteger, nullable=False),
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("position", Integer, nullable=False, comment="place in the order in which images were chosen"),
    Column("gold", Boolean, nullable=False),
    Index("uq_tasks_round_id_image_id", "round_id", "image_id", unique=True),
)

GIVEN_MASKS = Table(
    "given_masks",
    METADATA,
    Column("task_id", _NUMBER, ForeignKey(TASKS.c.task_id), primary_key=True),
    Column("purpose", Text, primary_key=True, comment="prefill: shown to the annotator; gold: compared in secret"),
    Column("mask", Text, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("payload", JSON, nullable=False),
    CheckConstraint("purpose IN ('prefill', 'gold')", name="purpose"),
)

SLOTS = Table(
    "slots",
    METADATA,
    Column("task_id", _NUMBER, ForeignKey(TASKS.c.task_id), primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("annotator", Text, ForeignKey(USERS.c.name), comment="who holds or last held the slot"),
    Column("token", Text, comment="token of the lease; NULL: no lease"),
    Column("expires_at", UtcTime, comment="end of the lease or of a reservation for the annotator"),
    Column("done", Boolean, nullable=False),
    Column("round_id", Text, ForeignKey(ROUNDS.c.round_id), nullable=False, comment="of the task, for the index"),
    Column("rank", Integer, nullable=False, comment="minus the task's priority, for the index"),
    Column("position", Integer, nullable=False, comment="of the task, for the index"),
    Index("uq_slots_task_id_annotator", "task_id", "annotator", unique=True),
    Index("ix_slots_annotator", "annotator"),
    # A claim finds the next slot of a round without sorting all that are left.
    Index(
        "ix_slots_next",
        *("round_id", "rank", "position", "task_id", "slot"),
        sqlite_where=text("done = 0"),
        postgresql_where=text("NOT done"),
    ),
)

LEASES = Table(
    "leases",
    METADATA,
    Column("token", Text, primary_key=True),
    Column("task_id", _NUMBER, ForeignKey(TASKS.c.task_id), nullable=False),
    Column("slot", Integer, nullable=False),
    Column("annotator", Text, ForeignKey(USERS.c.name), nullable=False),
    Column("granted_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("outcome", Text, nullable=False, comment="empty while the lease lasts"),
    Column("fixes", BigInteger, comment="submission that a reviewer fixes; NULL: a task that was claimed"),
    Index("ix_leases_task_id", "task_id"),
    Index("ix_leases_annotator", "annotator"),
)

ASSIGNMENTS = Table(
    "assignments",
    METADATA,
    Column("task_id", _NUMBER, ForeignKey(TASKS.c.task_id), primary_key=True),
    Column("annotator", Text, ForeignKey(USERS.c.name), primary_key=True),
    Column("state", Text, nullable=False),
    Column("revision", Integer, nullable=False, comment="operations of the annotator's main line"),
    Column("reason", Text, nullable=False, comment="why the task was skipped or sent back"),
    Column("created_at", UtcTime, nullable=False),
    CheckConstraint("state IN ('working', 'submitted', 'skipped', 'sent_back')", name="state"),
    Index("ix_assignments_annotator", "annotator"),
)

BRANCHES = Table(
    "branches",
    METADATA,
    Column("branch", Text, primary_key=True),
    Column("task_id", _NUMBER, ForeignKey(TASKS.c.task_id), nullable=False),
    Column("annotator", Text, ForeignKey(USERS.c.name), nullable=False),
    Column("session", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("fork_revision", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    CheckConstraint("state IN ('open', 'merged', 'dismissed')", name="state"),
    Index("ix_branches_task_id_annotator", "task_id", "annotator"),
)

OPERATIONS = Table(
    "operations",
    METADATA,
    Column("number", _NUMBER, primary_key=True, comment="order in which the workspace stored the operations"),
    Column("op_id", Text, nullable=False),
    Column("task_id", _NUMBER, ForeignKey(TASKS.c.task_id), nullable=False),
    Column("annotator", Text, ForeignKey(USERS.c.name), nullable=False),
    Column("token", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("base_revision", Integer, nullable=False),
    Column("branch", Text, nullable=False, comment="empty: the annotator's main line"),
    Column("revision", Integer, nullable=False, comment="revision of the line after the operation"),
    Column("kind", Text, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("client_time", UtcTime, nullable=False),
    Column("server_time", UtcTime, nullable=False),
    Index("uq_operations_op_id", "op_id", unique=True),
    Index("ix_operations_task_id_annotator", "task_id", "annotator", "number"),
    # A second line of defence: no two changes may follow the same revision of a line.
    Index(
        "uq_operations_revision",
        "task_id",
        "annotator",
        "branch",
        "revision",
        unique=True,
        sqlite_where=text("kind NOT IN ('activity', 'note')"),
        postgresql_where=text("kind NOT IN ('activity', 'note')"),
    ),
)

SUBMISSIONS = Table(
    "submissions",
    METADATA,
    Column("submission_id", _NUMBER, primary_key=True),
    Column("task_id", _NUMBER, ForeignKey(TASKS.c.task_id), nullable=False),
    Column("annotator", Text, ForeignKey(USERS.c.name), nullable=False),
    Column("token", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("submitted_at", UtcTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("masks", Integer, nullable=False),
    Column("fixes", BigInteger, comment="submission that this one takes the place of; NULL: an annotator's own work"),
    CheckConstraint("state IN ('submitted', 'accepted', 'sent_back', 'withdrawn')", name="state"),
    Index("uq_submissions_token", "token", unique=True),
    Index("ix_submissions_task_id", "task_id"),
)

VERDICTS = Table(
    "verdicts",
    METADATA,
    Column("verdict_id", _NUMBER, primary_key=True),
    Column("submission_id", _NUMBER, ForeignKey(SUBMISSIONS.c.submission_id), nullable=False),
    Column("mask", Text, nullable=False, comment="empty: the verdict is about the whole image"),
    Column("reviewer", Text, ForeignKey(USERS.c.name), nullable=False),
    Column("question", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    CheckConstraint("question IN ('mask_good', 'nothing_missing')", name="question"),
    CheckConstraint("answer IN ('yes', 'no', 'unsure')", name="answer"),
    Index("ix_verdicts_submission_id", "submission_id"),
)

AUDIT_LOG = Table(
    "audit_log",
    METADATA,
    Column("number", _NUMBER, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", JSON, nullable=False),
)

FIRINGS = Table(
    "firings",
    METADATA,
    Column("job", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("taken_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("result", JSON, nullable=False),
    CheckConstraint("state IN ('running', 'done', 'failed', 'lost')", name="state"),
    # One firing of a job runs at a time.
    Index(
        "uq_firings_running",
        "job",
        unique=True,
        sqlite_where=text("state = 'running'"),
        postgresql_where=text("state = 'running'"),
    ),
)
