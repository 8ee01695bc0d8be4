-- A state as the program of version 0.1.0 left it (version 4 of the state), with something of everything in it.
PRAGMA user_version = 4;
BEGIN TRANSACTION;
CREATE TABLE arrivals (
  study_uid TEXT NOT NULL, source_id INTEGER NOT NULL,
  set_at REAL NOT NULL,               -- when quiet_at was worked out: tells of a clock that was set back since
  quiet_at REAL NOT NULL, quiet INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (study_uid, source_id)
) WITHOUT ROWID;
INSERT INTO "arrivals" VALUES('1.2.5',1,1800000240.0,1800000300.0,0);
INSERT INTO "arrivals" VALUES('1.2.5',2,1800000240.0,1800000300.0,0);
CREATE TABLE audit (
  sequence INTEGER PRIMARY KEY,
  study_uid TEXT NOT NULL,
  entry TEXT NOT NULL,                -- canonical JSON, holds sequence, time, kind and the previous entry's hash
  hash TEXT NOT NULL                  -- SHA-256 of entry
);
INSERT INTO "audit" VALUES(1,'1.2.1','{"at":1800000060.0,"file":1,"kind":"authorised","previous":"0000000000000000000000000000000000000000000000000000000000000000","sequence":1,"sha256":"d8b314c1df8c22c007e12d5c8710e8f51f37b7820537033227b7c09d2ee8816c","study_uid":"1.2.1","verified_at":1800000060.0}','67b71a437ff9280044a150fdbf7cb86f908fe6ed37074420586b5876f3381b63');
INSERT INTO "audit" VALUES(2,'1.2.1','{"at":1800000060.0,"file":2,"kind":"authorised","previous":"67b71a437ff9280044a150fdbf7cb86f908fe6ed37074420586b5876f3381b63","sequence":2,"sha256":"377e28ad0eaf9050aa174e9969c11fbae367dea154aa110205d6edd941dcf16d","study_uid":"1.2.1","verified_at":1800000060.0}','9bea958ebf2a3e16b36ddaadfc24767f30c1193d71e74221f043922751399fa9');
INSERT INTO "audit" VALUES(3,'1.2.1','{"at":1800000060.0,"file":3,"kind":"authorised","previous":"9bea958ebf2a3e16b36ddaadfc24767f30c1193d71e74221f043922751399fa9","sequence":3,"sha256":"67cc43286e0e8edc23259e6dee6080c6769022ba68d2ccc9873a9ddd700f5aa3","study_uid":"1.2.1","verified_at":1800000060.0}','2eb0c1795a25516b4bf9c1e5b9351b8e24dfc172de0121d9b850e8016542074d');
INSERT INTO "audit" VALUES(4,'1.2.1','{"at":1800000060.0,"file":1,"kind":"deleted","previous":"2eb0c1795a25516b4bf9c1e5b9351b8e24dfc172de0121d9b850e8016542074d","sequence":4,"sha256":"d8b314c1df8c22c007e12d5c8710e8f51f37b7820537033227b7c09d2ee8816c","study_uid":"1.2.1"}','1ffe6c004dced505c39430d107d570839d32ef44b49d33d79b6ba2933994bda9');
INSERT INTO "audit" VALUES(5,'1.2.1','{"at":1800000060.0,"file":2,"kind":"deleted","previous":"1ffe6c004dced505c39430d107d570839d32ef44b49d33d79b6ba2933994bda9","sequence":5,"sha256":"377e28ad0eaf9050aa174e9969c11fbae367dea154aa110205d6edd941dcf16d","study_uid":"1.2.1"}','7cb144c006caa5f006f2d0c9c374f43fd0349f40c5abcd2181b6246b1e65e38b');
INSERT INTO "audit" VALUES(6,'1.2.1','{"at":1800000060.0,"file":3,"kind":"restored","previous":"7cb144c006caa5f006f2d0c9c374f43fd0349f40c5abcd2181b6246b1e65e38b","sequence":6,"sha256":"67cc43286e0e8edc23259e6dee6080c6769022ba68d2ccc9873a9ddd700f5aa3","study_uid":"1.2.1","why":"changed"}','77268870cf05054eefc58c1e9f024b39ce3cd8faa2d17b75991a108726d8f87f');
INSERT INTO "audit" VALUES(7,'1.2.4','{"at":1800000240.0,"file":7,"kind":"authorised","previous":"77268870cf05054eefc58c1e9f024b39ce3cd8faa2d17b75991a108726d8f87f","sequence":7,"sha256":"d161184d20b42dc859cdace347624c4df4b3d6b4dd477d532e4302763c1eeed8","study_uid":"1.2.4","verified_at":1800000240.0}','8093ad6b59151d3ebefc8a36ac7dfd96dc572a0723f50cd74f3e6f2b88b77d52');
CREATE TABLE file_counts (
  source_id INTEGER NOT NULL, state TEXT NOT NULL,
  files INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
  PRIMARY KEY (source_id, state)
) WITHOUT ROWID;
INSERT INTO "file_counts" VALUES(1,'aside',1,100);
INSERT INTO "file_counts" VALUES(1,'kept',2,200);
INSERT INTO "file_counts" VALUES(1,'quarantined',1,100);
INSERT INTO "file_counts" VALUES(1,'ready',3,300);
INSERT INTO "file_counts" VALUES(1,'stored',0,0);
INSERT INTO "file_counts" VALUES(2,'ready',1,100);
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
INSERT INTO "files" VALUES(4,1,X'41',X'494D34','1:4:100:10:20',100,'kept',1800000060.0,'1.2.2','1.2.2.1','1.2.2.1.4','1.2.840.10008.5.1.4.1.1.2','','[]','no-lease','no read lease',1,'03f41140002ea97c92920480eb87d16081cdb44c0606272a084957ec71ed33d4','{"key": "k/4", "size_bytes": 100, "sha256": "03f41140002ea97c92920480eb87d16081cdb44c0606272a084957ec71ed33d4", "created": true}','etag-md5',1800000120.0,7,NULL);
INSERT INTO "files" VALUES(5,1,X'41',X'494D35','1:5:100:10:20',100,'kept',1800000060.0,'1.2.2','1.2.2.1','1.2.2.1.5','1.2.840.10008.5.1.4.1.1.2','','[]',NULL,NULL,1,'5f2d3d6031b7be2174afb446a078229a53813f61434520393b46d03241d15ca4','{"key": "k/5", "size_bytes": 100, "sha256": "5f2d3d6031b7be2174afb446a078229a53813f61434520393b46d03241d15ca4", "created": true}','etag-md5',1800000120.0,7,1800086520.0);
INSERT INTO "files" VALUES(6,1,X'41',X'494D36','1:6:100:10:20',100,'ready',1800000120.0,'1.2.3','1.2.3.1','1.2.3.1.6','1.2.840.10008.5.1.4.1.1.2','','[]',NULL,NULL,1,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "files" VALUES(7,1,X'41',X'494D37','1:7:100:10:20',100,'aside',1800000180.0,'1.2.4','1.2.4.1','1.2.4.1.7','1.2.840.10008.5.1.4.1.1.2','','[]',NULL,NULL,1,'d161184d20b42dc859cdace347624c4df4b3d6b4dd477d532e4302763c1eeed8','{"key": "k/7", "size_bytes": 100, "sha256": "d161184d20b42dc859cdace347624c4df4b3d6b4dd477d532e4302763c1eeed8", "created": true}','etag-md5',1800000240.0,16,NULL);
INSERT INTO "files" VALUES(8,1,X'41',X'494D38','1:8:100:10:20',100,'ready',1800000240.0,'1.2.5','1.2.5.1','1.2.5.1.8','1.2.840.10008.5.1.4.1.1.2','','[]',NULL,NULL,1,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "files" VALUES(9,2,X'41',X'494D39','1:9:100:10:20',100,'ready',1800000240.0,'1.2.5','1.2.5.1','1.2.5.1.9','1.2.840.10008.5.1.4.1.1.2','','[]',NULL,NULL,1,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "files" VALUES(10,1,X'42',X'4A554E4B','1:10:100:10:20',100,'quarantined',1800000240.0,NULL,NULL,NULL,NULL,NULL,'[]','not-dicom','no DICOM',1,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "files" VALUES(11,1,X'41',X'494D3130','1:11:100:10:20',100,'ready',1800000240.0,'1.2.6','1.2.6.1','1.2.6.1.11','1.2.840.10008.5.1.4.1.1.2','','[]',NULL,NULL,1,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('archive_id','archive-1');
INSERT INTO "meta" VALUES('audit_chain','98c265a0d978b81a29eb68eb3a162826');
INSERT INTO "meta" VALUES('destination','place');
INSERT INTO "meta" VALUES('program','0.1.0');
CREATE TABLE series (
  study_uid TEXT NOT NULL, series_uid TEXT NOT NULL, attributes TEXT NOT NULL,
  PRIMARY KEY (study_uid, series_uid)
) WITHOUT ROWID;
INSERT INTO "series" VALUES('1.2.1','1.2.1.1','{}');
INSERT INTO "series" VALUES('1.2.2','1.2.2.1','{}');
INSERT INTO "series" VALUES('1.2.3','1.2.3.1','{}');
INSERT INTO "series" VALUES('1.2.4','1.2.4.1','{}');
INSERT INTO "series" VALUES('1.2.5','1.2.5.1','{}');
INSERT INTO "series" VALUES('1.2.6','1.2.6.1','{}');
CREATE TABLE shipments (
  shipment_id INTEGER PRIMARY KEY,
  study_uid TEXT NOT NULL, source TEXT NOT NULL, revision INTEGER NOT NULL,
  started_at REAL NOT NULL, finished_at REAL NOT NULL,
  files INTEGER NOT NULL, bytes INTEGER NOT NULL, retries INTEGER NOT NULL,
  stages TEXT NOT NULL                -- {"upload": {"files":, "bytes":, "seconds":}, ...}
);
INSERT INTO "shipments" VALUES(1,'1.2.1','ct1',1,0.0,1800000060.0,0,0,0,'{}');
INSERT INTO "shipments" VALUES(2,'1.2.2','ct1',1,0.0,1800000120.0,0,0,0,'{}');
CREATE TABLE sources (
  source_id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  path BLOB NOT NULL,
  kind TEXT NOT NULL,                 -- inbox | upload
  delete_local INTEGER NOT NULL,      -- upload --delete
  created_at REAL NOT NULL,
  scanned_at REAL                     -- end of the last whole look
);
INSERT INTO "sources" VALUES(1,'ct1',X'2F696E626F78','inbox',0,1800000000.0,NULL);
INSERT INTO "sources" VALUES(2,'upload-1',X'2F68616E6465642F696E','upload',1,1800000000.0,NULL);
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
INSERT INTO "studies" VALUES('1.2.1','archived',1,0,1800000060.0,0.0,0,1,1800000000.0,1800000060.0,NULL,NULL,'P1','[]','{"00100020": {"vr": "LO", "Value": ["P1"]}}','[]');
INSERT INTO "studies" VALUES('1.2.2','archived',7,0,1800000120.0,0.0,0,1,1800000060.0,1800000120.0,NULL,NULL,'P1','[]','{"00100020": {"vr": "LO", "Value": ["P1"]}}','[]');
INSERT INTO "studies" VALUES('1.2.3','parked',13,0,1800000180.0,0.0,0,0,1800000120.0,NULL,'no-proof','it was not verified','P1','[]','{"00100020": {"vr": "LO", "Value": ["P1"]}}','[]');
INSERT INTO "studies" VALUES('1.2.4','purging',16,1,1800000240.0,0.0,0,1,1800000180.0,NULL,NULL,NULL,'P1','[]','{"00100020": {"vr": "LO", "Value": ["P1"]}}','[]');
INSERT INTO "studies" VALUES('1.2.5','arriving',20,0,NULL,0.0,0,0,1800000240.0,NULL,NULL,NULL,'P1','[]','{"00100020": {"vr": "LO", "Value": ["P1"]}}','[]');
INSERT INTO "studies" VALUES('1.2.6','queued',21,0,1800000300.0,1800000305.0,1,0,1800000240.0,NULL,'x','','P1','[]','{"00100020": {"vr": "LO", "Value": ["P1"]}}','[]');
CREATE TABLE study_counts (state TEXT PRIMARY KEY, studies INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "study_counts" VALUES('archived',2);
INSERT INTO "study_counts" VALUES('arriving',1);
INSERT INTO "study_counts" VALUES('parked',1);
INSERT INTO "study_counts" VALUES('purging',1);
INSERT INTO "study_counts" VALUES('queued',1);
INSERT INTO "study_counts" VALUES('recording',0);
INSERT INTO "study_counts" VALUES('uploading',0);
INSERT INTO "study_counts" VALUES('verifying',0);
CREATE TABLE transitions (
  transition_id INTEGER PRIMARY KEY,
  study_uid TEXT NOT NULL, at REAL NOT NULL, old TEXT NOT NULL, event TEXT NOT NULL, new TEXT NOT NULL
);
INSERT INTO "transitions" VALUES(1,'1.2.1',1800000060.0,'arriving','quiet','queued');
INSERT INTO "transitions" VALUES(2,'1.2.1',1800000060.0,'queued','claimed','uploading');
INSERT INTO "transitions" VALUES(3,'1.2.1',1800000060.0,'uploading','stored','verifying');
INSERT INTO "transitions" VALUES(4,'1.2.1',1800000060.0,'verifying','verified','recording');
INSERT INTO "transitions" VALUES(5,'1.2.1',1800000060.0,'recording','recorded','purging');
INSERT INTO "transitions" VALUES(6,'1.2.1',1800000060.0,'purging','finished','archived');
INSERT INTO "transitions" VALUES(7,'1.2.2',1800000120.0,'arriving','quiet','queued');
INSERT INTO "transitions" VALUES(8,'1.2.2',1800000120.0,'queued','claimed','uploading');
INSERT INTO "transitions" VALUES(9,'1.2.2',1800000120.0,'uploading','stored','verifying');
INSERT INTO "transitions" VALUES(10,'1.2.2',1800000120.0,'verifying','verified','recording');
INSERT INTO "transitions" VALUES(11,'1.2.2',1800000120.0,'recording','recorded','purging');
INSERT INTO "transitions" VALUES(12,'1.2.2',1800000120.0,'purging','finished','archived');
INSERT INTO "transitions" VALUES(13,'1.2.3',1800000180.0,'arriving','quiet','queued');
INSERT INTO "transitions" VALUES(14,'1.2.3',1800000180.0,'queued','claimed','uploading');
INSERT INTO "transitions" VALUES(15,'1.2.3',1800000180.0,'uploading','failed','parked');
INSERT INTO "transitions" VALUES(16,'1.2.4',1800000240.0,'arriving','quiet','queued');
INSERT INTO "transitions" VALUES(17,'1.2.4',1800000240.0,'queued','claimed','uploading');
INSERT INTO "transitions" VALUES(18,'1.2.4',1800000240.0,'uploading','stored','verifying');
INSERT INTO "transitions" VALUES(19,'1.2.4',1800000240.0,'verifying','verified','recording');
INSERT INTO "transitions" VALUES(20,'1.2.4',1800000240.0,'recording','recorded','purging');
INSERT INTO "transitions" VALUES(21,'1.2.6',1800000300.0,'arriving','quiet','queued');
INSERT INTO "transitions" VALUES(22,'1.2.6',1800000300.0,'queued','claimed','uploading');
INSERT INTO "transitions" VALUES(23,'1.2.6',1800000300.0,'uploading','released','queued');
CREATE TABLE upload_results (
  source_id INTEGER NOT NULL, dir BLOB NOT NULL, name BLOB NOT NULL,
  outcome TEXT NOT NULL,              -- verified | deleted
  PRIMARY KEY (source_id, dir, name)
) WITHOUT ROWID;
INSERT INTO "upload_results" VALUES(2,X'41',X'4F4C44','deleted');
CREATE INDEX files_of_study ON files (study_uid, state);
CREATE INDEX arrivals_due ON arrivals (source_id, quiet, quiet_at);
CREATE INDEX transitions_of_study ON transitions (study_uid);
CREATE INDEX shipments_by_time ON shipments (finished_at);
CREATE INDEX shipments_of_study ON shipments (study_uid);
CREATE INDEX audit_of_study ON audit (study_uid);
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
CREATE INDEX files_due ON files (due_at) WHERE state = 'kept' AND due_at IS NOT NULL;
CREATE INDEX files_aside ON files (study_uid) WHERE state = 'aside';
CREATE INDEX files_quarantined ON files (seen_at) WHERE state = 'quarantined';
CREATE INDEX studies_open ON studies (state) WHERE state != 'archived';
CREATE INDEX studies_by_turn ON studies (queued_at, not_before) WHERE state = 'queued' AND claimed = 0;
CREATE INDEX studies_by_try ON studies (not_before) WHERE state = 'queued' AND claimed = 0;
CREATE INDEX arrivals_set ON arrivals (set_at);
CREATE INDEX arrivals_quiet ON arrivals (study_uid) WHERE quiet = 1;
CREATE INDEX files_without_lease ON files (source_id) WHERE state = 'kept' AND code = 'no-lease';
CREATE INDEX files_kept_elsewhere ON files (source_id, study_uid) WHERE state = 'kept' AND receipt IS NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('sources',2);
INSERT INTO "sqlite_sequence" VALUES('files',11);
COMMIT;
