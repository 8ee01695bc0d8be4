"""What the state database consists of, as the steps that make it: each takes a state from one version to the next.

A released step is never changed, and none is taken out or put between others: a new one is added at the end. Each is
done whole or not at all (`schema.open_writer`), and with a database of any size within seconds, for the daemon's start
waits for it: what takes longer is done in the background, bit by bit, by whoever needs it.
"""

from __future__ import annotations

from typing import NamedTuple

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- Where files come from: the configured inboxes, and folders handed in once by `upload`.
-- AUTOINCREMENT: a number is never given again, for commits, audit entries and running shipments go by it.
CREATE TABLE sources (
  source_id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  path BLOB NOT NULL,
  kind TEXT NOT NULL,                 -- inbox | upload
  delete_local INTEGER NOT NULL,      -- upload --delete
  created_at REAL NOT NULL,
  scanned_at REAL                     -- end of the last whole look
);

-- Files that are there and known. A row goes when its file is deleted on proof, has changed, or is gone.
CREATE TABLE files (
  file_id INTEGER PRIMARY KEY AUTOINCREMENT,
  source_id INTEGER NOT NULL REFERENCES sources,
  dir BLOB NOT NULL,                  -- below the source, '' is the source itself
  name BLOB NOT NULL,
  identity TEXT NOT NULL,             -- dev:inode:size:mtime_ns:ctime_ns (64 bit unsigned would not fit INTEGER)
  size_bytes INTEGER NOT NULL,
  state TEXT NOT NULL,
  seen_at REAL NOT NULL,
  study_uid TEXT, series_uid TEXT, sop_instance_uid TEXT, sop_class_uid TEXT, transfer_syntax_uid TEXT,
  repairs TEXT NOT NULL DEFAULT '[]',
  code TEXT, reason TEXT,             -- of quarantine
  key_attempt INTEGER NOT NULL DEFAULT 1,
  sha256 TEXT, receipt TEXT,          -- once sent
  evidence TEXT, evidence_at REAL, evidence_token INTEGER,   -- once verified, by which claim
  due_at REAL,                        -- of a kept file: when its time of deletion comes
  UNIQUE (source_id, dir, name)
);
CREATE INDEX files_of_study ON files (study_uid, state);
CREATE INDEX files_by_state ON files (state, due_at);

CREATE TABLE studies (
  study_uid TEXT PRIMARY KEY,
  state TEXT NOT NULL,
  token INTEGER NOT NULL DEFAULT 0,   -- fencing: grows with each claim and each revocation of one
  claimed INTEGER NOT NULL DEFAULT 0,
  queued_at REAL,
  not_before REAL NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  revision INTEGER NOT NULL DEFAULT 0,
  changed_at REAL NOT NULL,
  archived_at REAL,
  code TEXT, reason TEXT,             -- of the last failure, or of parking
  patient_id TEXT NOT NULL DEFAULT '',
  flags TEXT NOT NULL DEFAULT '[]',
  attributes TEXT NOT NULL DEFAULT '{}',
  damaged_keys TEXT NOT NULL DEFAULT '[]'
) WITHOUT ROWID;
CREATE INDEX studies_by_state ON studies (state, claimed, queued_at);

CREATE TABLE series (
  study_uid TEXT NOT NULL, series_uid TEXT NOT NULL, attributes TEXT NOT NULL,
  PRIMARY KEY (study_uid, series_uid)
) WITHOUT ROWID;

-- The quiet timer of an arriving study, one a source: quiet is set once that source was looked at after quiet_at.
CREATE TABLE arrivals (
  study_uid TEXT NOT NULL, source_id INTEGER NOT NULL,
  set_at REAL NOT NULL,               -- when quiet_at was worked out: tells of a clock that was set back since
  quiet_at REAL NOT NULL, quiet INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (study_uid, source_id)
) WITHOUT ROWID;
CREATE INDEX arrivals_due ON arrivals (source_id, quiet, quiet_at);

CREATE TABLE transitions (
  transition_id INTEGER PRIMARY KEY,
  study_uid TEXT NOT NULL, at REAL NOT NULL, old TEXT NOT NULL, event TEXT NOT NULL, new TEXT NOT NULL
);
CREATE INDEX transitions_of_study ON transitions (study_uid);

CREATE TABLE shipments (
  shipment_id INTEGER PRIMARY KEY,
  study_uid TEXT NOT NULL, source TEXT NOT NULL, revision INTEGER NOT NULL,
  started_at REAL NOT NULL, finished_at REAL NOT NULL,
  files INTEGER NOT NULL, bytes INTEGER NOT NULL, retries INTEGER NOT NULL,
  stages TEXT NOT NULL                -- {"upload": {"files":, "bytes":, "seconds":}, ...}
);
CREATE INDEX shipments_by_time ON shipments (finished_at);
CREATE INDEX shipments_of_study ON shipments (study_uid);

-- Outcome of each file handed in by `upload`, for the sentence at its end.
CREATE TABLE upload_results (
  source_id INTEGER NOT NULL, dir BLOB NOT NULL, name BLOB NOT NULL,
  outcome TEXT NOT NULL,              -- verified | deleted
  PRIMARY KEY (source_id, dir, name)
) WITHOUT ROWID;

-- Append-only, each entry's hash over the one before it: what was deleted, when, on what evidence.
CREATE TABLE audit (
  sequence INTEGER PRIMARY KEY,
  study_uid TEXT NOT NULL,
  entry TEXT NOT NULL,                -- canonical JSON, holds sequence, time, kind and the previous entry's hash
  hash TEXT NOT NULL                  -- SHA-256 of entry
);
CREATE INDEX audit_of_study ON audit (study_uid);
"""

#: What is asked often costs the same with a thousand files as with a million. Files and studies are counted where they
#: come, go and change their state. An index holds only the rows that it is asked for: what is archived is in none of
#: them, however much that becomes, and a file's way through its states touches one index in place of two. The queries
#: name these states as text, for an index of some rows serves no query that leaves them open.
SCALE = """
CREATE TABLE file_counts (
  source_id INTEGER NOT NULL, state TEXT NOT NULL,
  files INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
  PRIMARY KEY (source_id, state)
) WITHOUT ROWID;
INSERT INTO file_counts SELECT source_id, state, COUNT(*), SUM(size_bytes) FROM files GROUP BY source_id, state;
CREATE TRIGGER files_come AFTER INSERT ON files BEGIN
  INSERT INTO file_counts VALUES (NEW.source_id, NEW.state, 1, NEW.size_bytes)
    ON CONFLICT DO UPDATE SET files = files + 1, size_bytes = size_bytes + excluded.size_bytes;
END;
CREATE TRIGGER files_go AFTER DELETE ON files BEGIN
  UPDATE file_counts SET files = files - 1, size_bytes = size_bytes - OLD.size_bytes
    WHERE source_id = OLD.source_id AND state = OLD.state;
END;
CREATE TRIGGER files_change AFTER UPDATE OF source_id, state, size_bytes ON files
  WHEN OLD.state != NEW.state OR OLD.size_bytes != NEW.size_bytes OR OLD.source_id != NEW.source_id BEGIN
  UPDATE file_counts SET files = files - 1, size_bytes = size_bytes - OLD.size_bytes
    WHERE source_id = OLD.source_id AND state = OLD.state;
  INSERT INTO file_counts VALUES (NEW.source_id, NEW.state, 1, NEW.size_bytes)
    ON CONFLICT DO UPDATE SET files = files + 1, size_bytes = size_bytes + excluded.size_bytes;
END;

CREATE TABLE study_counts (state TEXT PRIMARY KEY, studies INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO study_counts SELECT state, COUNT(*) FROM studies GROUP BY state;
CREATE TRIGGER studies_come AFTER INSERT ON studies BEGIN
  INSERT INTO study_counts VALUES (NEW.state, 1) ON CONFLICT DO UPDATE SET studies = studies + 1;
END;
CREATE TRIGGER studies_go AFTER DELETE ON studies BEGIN
  UPDATE study_counts SET studies = studies - 1 WHERE state = OLD.state;
END;
CREATE TRIGGER studies_change AFTER UPDATE OF state ON studies WHEN OLD.state != NEW.state BEGIN
  UPDATE study_counts SET studies = studies - 1 WHERE state = OLD.state;
  INSERT INTO study_counts VALUES (NEW.state, 1) ON CONFLICT DO UPDATE SET studies = studies + 1;
END;

DROP INDEX files_by_state;
CREATE INDEX files_due ON files (due_at) WHERE state = 'kept' AND due_at IS NOT NULL;
CREATE INDEX files_aside ON files (study_uid) WHERE state = 'aside';
CREATE INDEX files_quarantined ON files (seen_at) WHERE state = 'quarantined';

DROP INDEX studies_by_state;
CREATE INDEX studies_open ON studies (state) WHERE state != 'archived';
CREATE INDEX studies_by_turn ON studies (queued_at, not_before) WHERE state = 'queued' AND claimed = 0;
CREATE INDEX studies_by_try ON studies (not_before) WHERE state = 'queued' AND claimed = 0;

CREATE INDEX arrivals_set ON arrivals (set_at);
CREATE INDEX arrivals_quiet ON arrivals (study_uid) WHERE quiet = 1;
"""

#: Names the audit chain in what is published of it: one for each state, random, so that several daemons, and a state
#: that was lost and made anew, are told apart.
CHAIN_ID = "INSERT INTO meta (key, value) VALUES ('audit_chain', lower(hex(randomblob(16))));"

#: Files that are kept for another reason than their inbox's rule, which are few.
KEPT = """
CREATE INDEX files_without_lease ON files (source_id) WHERE state = 'kept' AND code = 'no-lease';
CREATE INDEX files_kept_elsewhere ON files (source_id, study_uid) WHERE state = 'kept' AND receipt IS NULL;
"""

#: Whose turn it is. A study that was tried goes behind those that were not; one that failed while others passed waits
#: in a line of its own (see shipments.BLAMED_OFTEN); one that failed on an endpoint as others did is found by its name.
TURNS = """
ALTER TABLE studies ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
ALTER TABLE studies ADD COLUMN blamed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE studies ADD COLUMN endpoint TEXT;
DROP INDEX studies_by_turn;
CREATE INDEX studies_by_turn ON studies (turn, queued_at, not_before)
  WHERE state = 'queued' AND claimed = 0 AND blamed < 2;
CREATE INDEX studies_ill ON studies (turn, queued_at, not_before)
  WHERE state = 'queued' AND claimed = 0 AND blamed >= 2;
DROP INDEX studies_by_try;
CREATE INDEX studies_by_try ON studies (not_before) WHERE state = 'queued' AND claimed = 0 AND blamed < 2;
CREATE INDEX studies_ill_by_try ON studies (not_before) WHERE state = 'queued' AND claimed = 0 AND blamed >= 2;
CREATE INDEX studies_of_endpoint ON studies (endpoint) WHERE endpoint IS NOT NULL;
"""

#: An upload from its beginning to thirty days after its end. What is still owed an account stands in upload_results: a
#: row for each file that was seen in the folder and not deleted on proof.
UPLOADS = """
CREATE TABLE uploads (
  source_id INTEGER PRIMARY KEY,      -- of sources, while it is under way; never given again
  name TEXT NOT NULL UNIQUE,
  path BLOB NOT NULL,
  delete_local INTEGER NOT NULL,
  root TEXT,                          -- device:inode:file system of the folder itself
  started_at REAL NOT NULL,
  stage TEXT NOT NULL,                -- running | cancelling | ended
  deleted_files INTEGER NOT NULL DEFAULT 0,
  ended_at REAL,
  result TEXT                         -- JSON, once it has ended
);
CREATE INDEX uploads_ended ON uploads (ended_at) WHERE stage = 'ended';
CREATE INDEX uploads_open ON uploads (stage) WHERE stage != 'ended';
INSERT INTO uploads (source_id, name, path, delete_local, started_at, stage, deleted_files)
  SELECT source_id, name, path, delete_local, created_at, 'running',
    (SELECT COUNT(*) FROM upload_results r WHERE r.source_id = s.source_id AND r.outcome = 'deleted')
  FROM sources s WHERE kind = 'upload';
DELETE FROM upload_results WHERE outcome = 'deleted' OR source_id NOT IN (SELECT source_id FROM uploads);
INSERT OR IGNORE INTO upload_results (source_id, dir, name, outcome)
  SELECT source_id, dir, name, CASE state WHEN 'kept' THEN 'verified' ELSE 'seen' END FROM files
  WHERE source_id IN (SELECT source_id FROM uploads);
"""

#: Files that are the archive's own objects.
OWN = """
CREATE INDEX files_own_objects ON files (source_id) WHERE state = 'kept' AND code = 'own-object';
"""


#: What outlives a remount, see `remounts`: a device number is no file system's own, and a due time is the file's, not
#: the row's.
REMOUNTS = """
CREATE TABLE file_systems (
  source_id INTEGER NOT NULL, device INTEGER NOT NULL,
  file_system TEXT NOT NULL,          -- the digest of what tells it from every other one
  seen_at REAL NOT NULL,
  PRIMARY KEY (source_id, device)
) WITHOUT ROWID;

CREATE TABLE dues (
  source_id INTEGER NOT NULL, dir BLOB NOT NULL, name BLOB NOT NULL,
  sha256 TEXT NOT NULL, due_at REAL NOT NULL,
  PRIMARY KEY (source_id, dir, name)
) WITHOUT ROWID;
CREATE INDEX dues_by_time ON dues (due_at);
CREATE TRIGGER files_leave_dues AFTER DELETE ON files WHEN OLD.due_at IS NOT NULL AND OLD.sha256 IS NOT NULL BEGIN
  INSERT INTO dues VALUES (OLD.source_id, OLD.dir, OLD.name, OLD.sha256, OLD.due_at)
    ON CONFLICT DO UPDATE SET sha256 = excluded.sha256, due_at = excluded.due_at;
END;
"""

#: Finished segments of the audit chain (see queue.segments). Of each there is the row for good, and which studies it
#: speaks of; its entries are in the archive.
SEGMENTS = """
CREATE TABLE audit_segments (
  first INTEGER PRIMARY KEY, last INTEGER NOT NULL,   -- the entries, by their numbers
  previous TEXT NOT NULL,             -- hash of the entry before the first
  head TEXT NOT NULL,                 -- hash of the last entry
  archive_id TEXT NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 1, -- above 1 where a key was found to hold something else
  sha256 TEXT, size_bytes INTEGER,    -- of the text, and of the object
  sealed_at REAL                      -- once it was read back from the archive: its entries are no longer needed here
);
CREATE INDEX audit_segments_by_end ON audit_segments (last);
CREATE TABLE audit_studies (
  study_uid TEXT NOT NULL, first INTEGER NOT NULL,
  PRIMARY KEY (study_uid, first)
) WITHOUT ROWID;
"""


#: What is left of old shipments, and by what old studies are found (see queue.database.pruning). ``wall`` is told to
#: nobody and written no more (0 from then on): only a step could drop the column, and it is not worth one of its own.
PRUNING = """
CREATE TABLE shipment_days (
  day TEXT NOT NULL, source TEXT NOT NULL,            -- UTC, YYYY-MM-DD
  shipments INTEGER NOT NULL, studies INTEGER NOT NULL, files INTEGER NOT NULL, bytes INTEGER NOT NULL,
  retries INTEGER NOT NULL, wall REAL NOT NULL,
  seconds TEXT NOT NULL,              -- {"upload": seconds, ...}
  PRIMARY KEY (day, source)
) WITHOUT ROWID;
CREATE INDEX studies_whole ON studies (archived_at, study_uid) WHERE state = 'archived' AND attributes != '{}';
"""


class Step(NamedTuple):
    """``name`` is for people; ``sql`` are statements, each closed with a semicolon."""

    name: str
    sql: str


#: Files that are kept while the store would end their objects by itself: none, or all that come.
EXPIRING = """
CREATE INDEX files_expiring ON files (file_id) WHERE state = 'kept' AND code = 'expiring';
"""


#: Who has handed a folder in, with the rights that what is done there is judged by; and what stays for want of them.
ASKERS = """
ALTER TABLE uploads ADD COLUMN asker TEXT;    -- JSON: uid, gid, groups, login
CREATE INDEX files_no_right ON files (source_id) WHERE state = 'kept' AND code = 'no-right';
"""


#: Which folder each inbox is (device:inode:file system:birth), and which other one was found in its place, if any.
ROOTS = """
CREATE TABLE roots (source_id INTEGER PRIMARY KEY, root TEXT NOT NULL, found TEXT, found_at REAL);
CREATE INDEX files_exchanged ON files (source_id) WHERE state = 'kept' AND code = 'exchanged';
"""


#: What a shipment has sent, and what days of them have sent in how long: a speed is told of nothing else. Older ones
#: have written down what they recorded, though it may have been sent while the study arrived, or have been there.
SPEEDS = """
ALTER TABLE shipments ADD COLUMN sent_bytes INTEGER;
ALTER TABLE shipment_days ADD COLUMN sent_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE shipment_days ADD COLUMN sent_seconds REAL NOT NULL DEFAULT 0;
"""


#: One word for what happens to a file whose deletion is authorised: state, module and documents call it so.
DELETING = """
DROP INDEX files_aside;
UPDATE files SET state = 'deleting' WHERE state = 'aside';
DELETE FROM file_counts WHERE state = 'aside';
-- How far an upload had come that is being cancelled; in a name or a reason, a quote has a backslash before it.
UPDATE uploads SET result = replace(result, '"aside":', '"deleting":') WHERE stage = 'cancelling';
CREATE INDEX files_deleting ON files (study_uid) WHERE state = 'deleting';
"""


#: Whom the files of a study name: each distinct patient and order, told apart by the digest of the bytes that say it.
IDENTITIES = """
CREATE TABLE identities (
  study_uid TEXT NOT NULL,
  kind TEXT NOT NULL,                 -- patient | order
  digest TEXT NOT NULL,               -- or 'before', 'more': see below, and arrivals
  said TEXT NOT NULL,                 -- JSON, see patients; of 'before' DICOM JSON
  PRIMARY KEY (study_uid, kind, digest)
) WITHOUT ROWID;
-- What a study's first file said: so far its attributes are those of one file.
INSERT INTO identities SELECT study_uid, 'patient', 'before', attributes FROM studies WHERE attributes != '{}';
INSERT INTO identities SELECT study_uid, 'order', 'before', attributes FROM studies WHERE attributes != '{}';
CREATE TRIGGER studies_go_with_identities AFTER DELETE ON studies BEGIN
  DELETE FROM identities WHERE study_uid = OLD.study_uid;
END;
"""


#: Studies of which nothing is deleted until somebody has released them; a row stays once they have.
HOLDS = """
CREATE TABLE holds (
  study_uid TEXT NOT NULL,
  code TEXT NOT NULL,                 -- why: two-patients
  found TEXT NOT NULL,                -- JSON: what was found, for people; holds patients' names
  held_at REAL NOT NULL,
  released_at REAL,                   -- NULL: it is held
  PRIMARY KEY (study_uid, code)
) WITHOUT ROWID;
CREATE INDEX holds_open ON holds (held_at) WHERE released_at IS NULL;
CREATE INDEX files_held ON files (study_uid) WHERE state = 'kept' AND code = 'held';
CREATE INDEX files_held_of_source ON files (source_id) WHERE state = 'kept' AND code = 'held';
"""


#: Damaged files of which it can be told whose they are: archived as such, and kept. Those that earlier versions have
#: put into quarantine are looked at once more.
DAMAGED = """
ALTER TABLE files ADD COLUMN damage TEXT NOT NULL DEFAULT '';
CREATE INDEX files_damaged ON files (source_id) WHERE state = 'kept' AND code = 'damaged';
CREATE INDEX files_damaged_of_study ON files (study_uid, sop_instance_uid) WHERE state = 'kept' AND code = 'damaged';
CREATE INDEX files_of_nobody ON files (source_id, dir)
  WHERE state = 'quarantined' AND code IN ('truncated', 'malformed', 'no-uid', 'bad-uid');
UPDATE files SET code = 'unexpected-before' WHERE state = 'quarantined' AND code IN ('truncated', 'malformed');
"""


#: What a file says of how many there should be; NULL of those that earlier versions have read.
SIGNS = """
ALTER TABLE files ADD COLUMN signs TEXT;
"""


#: Whether the studies of an upload are complete, as they were recorded; until the upload's end.
UPLOAD_STUDIES = """
CREATE TABLE upload_studies (
  source_id INTEGER NOT NULL,
  study_uid TEXT NOT NULL,
  answer TEXT NOT NULL,               -- study_completeness.Answer
  gaps TEXT NOT NULL,                 -- JSON: what is missing, in words
  PRIMARY KEY (source_id, study_uid)
) WITHOUT ROWID;
"""


#: What DICOMDIRs list of studies, and which studies wait for what is listed. A list goes with its
#: DICOMDIR. Those that earlier versions have passed over are read now.
LISTED = """
CREATE TABLE listed (
  list_id INTEGER PRIMARY KEY,
  file_id INTEGER NOT NULL,           -- of the DICOMDIR
  source_id INTEGER NOT NULL, dir BLOB NOT NULL,      -- its folder: it speaks for what is in it and below
  study_uid TEXT NOT NULL,
  sha256 TEXT NOT NULL,               -- of the DICOMDIR
  images INTEGER NOT NULL,
  uids TEXT NOT NULL,                 -- SOP Instance UIDs, ascending, with a space between two
  lacking TEXT,                       -- those of them that the archive lacked when it was asked; NULL: it was not
  UNIQUE (file_id, study_uid)
);
CREATE INDEX listed_of_study ON listed (study_uid, file_id);
CREATE TABLE listed_counts (source_id INTEGER PRIMARY KEY, images INTEGER NOT NULL);
CREATE TABLE listed_waits (
  study_uid TEXT PRIMARY KEY,
  set_at REAL NOT NULL, until REAL NOT NULL,          -- set_at as in arrivals
  missing INTEGER NOT NULL,           -- how many images are waited for
  stale INTEGER NOT NULL DEFAULT 0,   -- that may be another number by now
  ended INTEGER NOT NULL DEFAULT 0,
  newest INTEGER NOT NULL DEFAULT 0,  -- file_id of the newest DICOMDIR when it ended
  revision INTEGER NOT NULL DEFAULT 0 -- of the study when it ended
) WITHOUT ROWID;
CREATE INDEX listed_waits_open ON listed_waits (until) WHERE ended = 0;
CREATE TRIGGER listed_come AFTER INSERT ON listed BEGIN
  INSERT INTO listed_counts VALUES (NEW.source_id, NEW.images)
    ON CONFLICT DO UPDATE SET images = images + excluded.images;
  UPDATE listed_waits SET stale = 1 WHERE study_uid = NEW.study_uid;
END;
CREATE TRIGGER listed_go AFTER DELETE ON listed BEGIN
  UPDATE listed_counts SET images = images - OLD.images WHERE source_id = OLD.source_id;
  UPDATE listed_waits SET stale = 1 WHERE study_uid = OLD.study_uid;
END;
CREATE TRIGGER listed_change AFTER UPDATE OF lacking ON listed BEGIN
  UPDATE listed_waits SET stale = 1 WHERE study_uid = NEW.study_uid;
END;
CREATE TRIGGER files_go_with_lists AFTER DELETE ON files WHEN OLD.code = 'dicomdir' BEGIN
  DELETE FROM listed WHERE file_id = OLD.file_id;
END;
CREATE TRIGGER studies_go_with_waits AFTER DELETE ON studies BEGIN
  DELETE FROM listed_waits WHERE study_uid = OLD.study_uid;
END;
UPDATE files SET code = 'dicomdir-before' WHERE state = 'ignored' AND code = 'dicomdir'
  AND source_id IN (SELECT source_id FROM sources WHERE kind = 'inbox');
"""


#: Erasures of studies that are on record in the audit chain.
ERASURES = """
CREATE TABLE erasures (
  study_uid TEXT PRIMARY KEY,
  number INTEGER NOT NULL,            -- of the newest that was noted
  noted_at REAL NOT NULL
) WITHOUT ROWID;
"""


#: Files that came by receivers that are asked for commitment, and are gone from here: where the archive has to be asked
#: for them. ``gone_at`` is NULL until somebody who has a clock comes by.
RECEIVED = """
CREATE TABLE received_sources (source_id INTEGER PRIMARY KEY);
CREATE TABLE received (
  source_id INTEGER NOT NULL, name BLOB NOT NULL,
  study_uid TEXT NOT NULL,            -- '' where nobody knew it yet
  sha256 TEXT,                        -- NULL: it was never sent
  gone_at REAL,
  PRIMARY KEY (source_id, name)
) WITHOUT ROWID;
CREATE INDEX received_by_time ON received (gone_at);
CREATE TRIGGER files_received AFTER DELETE ON files
  WHEN OLD.dir = x'' AND OLD.source_id IN (SELECT source_id FROM received_sources) BEGIN
  INSERT INTO received (source_id, name, study_uid, sha256)
    VALUES (OLD.source_id, OLD.name, COALESCE(OLD.study_uid, ''), OLD.sha256)
    ON CONFLICT DO UPDATE SET study_uid = excluded.study_uid, sha256 = excluded.sha256, gone_at = NULL;
END;
"""


#: Restore drills: which study was chosen when, and what has come of it. ``instances`` were compared with the manifest,
#: ``equal`` of them have come back as they are recorded.
DRILLS = """
CREATE TABLE drills (
  drill_id INTEGER PRIMARY KEY,
  at REAL NOT NULL,
  study_uid TEXT NOT NULL,            -- '' where none could be chosen
  revision INTEGER NOT NULL,          -- whose manifest was compared with; 0 where none could be read
  outcome TEXT NOT NULL, code TEXT NOT NULL,          -- queue.drills.Outcome; why
  instances INTEGER NOT NULL, equal INTEGER NOT NULL,
  bytes INTEGER NOT NULL, seconds REAL NOT NULL
);
CREATE INDEX drills_by_time ON drills (at);
CREATE INDEX drills_of_study ON drills (study_uid, drill_id);
CREATE INDEX drills_failed ON drills (study_uid, drill_id) WHERE outcome = 'failed';
"""


#: Since when a study has files that are not archived; NULL of one that has none, whatever of it falls due. By state, so
#: that the longest wait is the first entry of an index, however many wait.
WAITS_SINCE = """
ALTER TABLE studies ADD COLUMN waits_since REAL;
UPDATE studies SET waits_since = COALESCE(queued_at, changed_at) WHERE state != 'archived';
DROP INDEX studies_open;
CREATE INDEX studies_open ON studies (state, waits_since) WHERE state != 'archived';
"""


#: Alarms that are open, and those that have ended, for a while. And in which hours (since the epoch) something came
#: into an inbox, or nothing while it was watched: its rhythm.
ALARMS = """
CREATE TABLE alarms (
  alarm_id INTEGER PRIMARY KEY,
  code TEXT NOT NULL,                 -- alarms.kinds.Kind
  subject TEXT NOT NULL,              -- which inbox, receiver ..., by its name in the configuration; '': there is one
  sentence TEXT NOT NULL,
  begun_at REAL NOT NULL,
  ended_at REAL,                      -- NULL: it is open
  told INTEGER NOT NULL DEFAULT 0     -- to the command of on_alarm: 1 its begin, 2 its end too
);
CREATE UNIQUE INDEX alarms_open ON alarms (code, subject) WHERE ended_at IS NULL;
CREATE INDEX alarms_untold ON alarms (alarm_id) WHERE told = 0 OR (told = 1 AND ended_at IS NOT NULL);
CREATE TABLE inbox_hours (
  source_id INTEGER NOT NULL, hour INTEGER NOT NULL,
  files INTEGER NOT NULL,             -- that have come in it
  watched_seconds REAL NOT NULL,      -- of it, in which the inbox could be seen
  PRIMARY KEY (source_id, hour)
) WITHOUT ROWID;
"""


#: Since when the study of a shipment had waited when that came to its end: how long it took from its first file to the
#: archive. NULL of older shipments, and of one for which nobody waited (a kept file that fell due).
TO_ARCHIVE = """
ALTER TABLE shipments ADD COLUMN waited_since REAL;
"""


#: What takes a state of version 0, 1, 2 ... to the next one: the version is the number of steps that were done.
STEPS: tuple[Step, ...] = (
    Step("tables", TABLES),
    Step("counted where it changes", SCALE),
    Step("the audit chain has an id", CHAIN_ID),
    Step("kept for another reason than their inbox's rule", KEPT),
    Step("what outlives a remount", REMOUNTS),
    Step("an upload has a stage and a result", UPLOADS),
    Step("finished segments of the audit chain", SEGMENTS),
    Step("the archive's own objects", OWN),
    Step("whose turn it is", TURNS),
    Step("kept while the store would end their objects", EXPIRING),
    Step("sums of old shipments", PRUNING),
    Step("who has handed a folder in", ASKERS),
    Step("which folder each inbox is", ROOTS),
    Step("what was sent, and in how long", SPEEDS),
    Step("a file whose deletion is authorised is called so", DELETING),
    Step("whom the files of a study name", IDENTITIES),
    Step("studies that are held", HOLDS),
    Step("damaged files are archived as damaged", DAMAGED),
    Step("what files say of how many there should be", SIGNS),
    Step("whether the studies of an upload are complete", UPLOAD_STUDIES),
    Step("what DICOMDIRs list", LISTED),
    Step("studies that were erased", ERASURES),
    Step("what has come by receivers, and where it is", RECEIVED),
    Step("what has come of restore drills", DRILLS),
    Step("since when a study waits", WAITS_SINCE),
    Step("alarms, and the rhythm of inboxes", ALARMS),
    Step("how long studies took to the archive", TO_ARCHIVE),
)
