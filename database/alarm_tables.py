"""The tables of `alarms`: rules, the alarms that they raised, what became of each, notifications, e-mail addresses.

All rows go with the owner's account.
"""

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text, TypedColumns, UniqueConstraint
from sqlalchemy import Column as C  # noqa: N817 - columns read as a table below

from database.columns import ascii_text, table


class _AlarmRules(TypedColumns):
    owner_id = C(ascii_text(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    id = C(ascii_text(36), primary_key=True)
    # JSON, as `POST /alarms/rules` takes it.
    definition = C(Text, nullable=False)
    # Raised by each change of what the rule watches: alarms of an earlier one are over.
    version = C(Integer, nullable=False)
    created_at_ms = C(BigInteger, nullable=False)
    changed_at_ms = C(BigInteger, nullable=False)
    # The secret that signs its webhooks, sealed: alarms/webhooks/secrets.py. None: it has none.
    sealed_secret = C(ascii_text(255))
    # Signs as well until then, after a rotation.
    previous_sealed_secret = C(ascii_text(255))
    previous_until_ms = C(BigInteger)
    # From `alarm_rule_counter`, whose row stays locked until the commit: numbers become visible in order.
    number = C(BigInteger, nullable=False)
    # If set, the rule is removed. Its row is kept for those who follow the numbers, and signs what is still due.
    removed_at_ms = C(BigInteger)


class _AlarmRuleCounter(TypedColumns):
    # Always 1: the table has one row.
    id = C(Integer, primary_key=True, autoincrement=False)
    number = C(BigInteger, nullable=False)


class _Alarms(TypedColumns):
    owner_id = C(ascii_text(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    id = C(ascii_text(36), primary_key=True)
    rule_id = C(ascii_text(36), nullable=False)
    device = C(ascii_text(64), nullable=False)
    sensor_type = C(ascii_text(64), nullable=False)
    rule_version = C(Integer, nullable=False)
    # ok, pending, firing, acknowledged
    state = C(ascii_text(12), nullable=False)
    # The time of the reading with which the condition began to hold; None while it is ok.
    since_ms = C(BigInteger)
    # The reading that made the newest transition, in the order of which no earlier one counts any more.
    ts_ms = C(BigInteger, nullable=False)
    seq = C(BigInteger, nullable=False)
    # Of the newest row in the history.
    number = C(Integer, nullable=False)
    changed_at_ms = C(BigInteger, nullable=False)


class _AlarmHistory(TypedColumns):
    owner_id = C(ascii_text(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    alarm_id = C(ascii_text(36), primary_key=True)
    # 1, 2, 3, …
    number = C(Integer, primary_key=True, autoincrement=False)
    state = C(ascii_text(12), nullable=False)
    # reading, late, silence, owner, rule
    cause = C(ascii_text(12), nullable=False)
    # Of the reading, or of the time at which its absence counts; of an acknowledgement, the time of it.
    ts_ms = C(BigInteger, nullable=False)
    seq = C(BigInteger, nullable=False)
    # JSON; None where no reading is the cause.
    value = C(Text)
    unit = C(String(32))
    recorded_at_ms = C(BigInteger, nullable=False)


class _AlarmDeliveries(TypedColumns):
    owner_id = C(ascii_text(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    # The `webhook-id`, or that of the mail's Message-ID: the same at every attempt.
    id = C(ascii_text(36), primary_key=True)
    rule_id = C(ascii_text(36), nullable=False)
    # None for a digest, which is of many.
    alarm_id = C(ascii_text(36))
    # webhook, email
    kind = C(ascii_text(12), nullable=False)
    # A URL, or an e-mail address.
    target = C(String(2048), nullable=False)
    # JSON: the body that is sent, the same at every attempt; a digest's is made when it is due.
    body = C(Text, nullable=False)
    # pending, delivered, dead
    state = C(ascii_text(12), nullable=False)
    attempts = C(Integer, nullable=False)
    # An HTTP status, an SMTP reply's code, or a short word for why there was none; never what the receiver answered.
    last_status = C(String(64))
    created_at_ms = C(BigInteger, nullable=False)
    # From then on it is dead if it has not been delivered.
    give_up_at_ms = C(BigInteger, nullable=False)
    due_at_ms = C(BigInteger, nullable=False)
    # Until then one process sends it, and no other does.
    leased_until_ms = C(BigInteger, nullable=False)
    # When it was delivered or given up.
    finished_at_ms = C(BigInteger)


class _AlarmEmails(TypedColumns):
    owner_id = C(ascii_text(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    # Whose code and confirmation the rest is: once the account has another address, none of it counts.
    address = C(String(254), nullable=False)
    confirmed_at_ms = C(BigInteger)
    # Of the code that was mailed last: alarms/mail/codes.py. None: there is none that could be entered.
    code_hash = C(ascii_text(64))
    code_until_ms = C(BigInteger)
    # With that code.
    wrong_tries = C(Integer, nullable=False)
    # When a code was last mailed, or should have been.
    tried_at_ms = C(BigInteger, nullable=False)
    # JSON: when codes were mailed within the last day, the oldest first.
    sent_ms = C(Text, nullable=False)


class _AlarmSeries(TypedColumns):
    owner_id = C(ascii_text(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    device = C(ascii_text(64), primary_key=True)
    sensor_type = C(ascii_text(64), primary_key=True)
    # The newest reading that was evaluated, at most some seconds ago.
    ts_ms = C(BigInteger, nullable=False)
    seq = C(BigInteger, nullable=False)
    # JSON.
    value = C(Text, nullable=False)
    received_at_ms = C(BigInteger, nullable=False)


class _AlarmLeader(TypedColumns):
    # Always 1: the table has one row.
    id = C(Integer, primary_key=True, autoincrement=False)
    # Of the process that evaluates; nothing that another one found out is stored.
    holder = C(ascii_text(36), nullable=False)
    until_ms = C(BigInteger, nullable=False)


alarm_rules = table("alarm_rules", _AlarmRules, Index("alarm_rules_number", "number"))
alarm_rule_counter = table("alarm_rule_counter", _AlarmRuleCounter)
alarms = table(
    "alarms",
    _Alarms,
    UniqueConstraint("owner_id", "rule_id", "device", "sensor_type", name="alarms_series"),
    Index("alarms_state", "owner_id", "state"),
)
alarm_history = table(
    "alarm_history",
    _AlarmHistory,
    Index("alarm_history_recorded", "recorded_at_ms"),
    Index("alarm_history_ts", "owner_id", "alarm_id", "ts_ms", "seq"),
)
alarm_deliveries = table(
    "alarm_deliveries",
    _AlarmDeliveries,
    Index("alarm_deliveries_due", "state", "kind", "owner_id", "due_at_ms"),
    Index("alarm_deliveries_rule", "owner_id", "rule_id", "created_at_ms"),
    Index("alarm_deliveries_finished", "finished_at_ms"),
)
alarm_emails = table("alarm_emails", _AlarmEmails)
alarm_series = table("alarm_series", _AlarmSeries)
alarm_leader = table("alarm_leader", _AlarmLeader)
