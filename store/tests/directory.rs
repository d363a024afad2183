//! Opening: locks, files that are not ours, copies of a directory.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use comity_crdts::{OriginId, SpaceId};
use comity_engine::{Batch, LogRead, StateRead, Store};
use comity_store::{EmbeddedStore, OpenError, Opened, StoreOptions};
use redb::{Database, ReadableDatabase, TableDefinition};

const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
const LOCKED_DIR: &str = "COMITY_TEST_LOCKED_DIR";
const LOCKED_PID: &str = "COMITY_TEST_LOCKED_PID";

fn open(dir: &Path) -> Result<Opened, OpenError> {
    EmbeddedStore::open(dir, StoreOptions::default())
}

fn refused(dir: &Path) -> OpenError {
    open(dir).map(drop).unwrap_err()
}

/// Copies files and modes, as backup programs do.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.path().is_dir() {
            copy(&file.path(), &to.join(file.file_name()));
            continue;
        }
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_missing_directory_is_made_with_its_parents_for_the_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one/two");
    assert!(open(&path).unwrap().created);
    assert!(!open(&path).unwrap().created);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        for file in [&path, &path.join("log")].into_iter().flat_map(|dir| fs::read_dir(dir).unwrap()) {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0);
        }
    }
}

#[test]
fn a_second_open_in_the_same_process_is_refused_with_the_pid_until_the_first_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, syncer, reader, .. } = open(dir.path()).unwrap();
    let error = refused(dir.path());
    let own = std::process::id();
    assert!(
        matches!(&error, OpenError::Locked { path, pid: Some(pid) } if path == dir.path() && *pid == own)
    );
    assert!(error.to_string().ends_with(&format!("is in use by process {own}")));
    drop(store);
    assert!(matches!(refused(dir.path()), OpenError::Locked { .. }));
    drop(syncer);
    open(dir.path()).unwrap();
    assert!(reader.snapshot().is_err());
}

#[test]
fn a_second_process_is_refused() {
    // The test runs itself again as the second process.
    if let Some(dir) = std::env::var_os(LOCKED_DIR) {
        let holder = std::env::var(LOCKED_PID).unwrap().parse::<u32>().unwrap();
        let error = refused(Path::new(&dir));
        assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == holder));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _opened = open(dir.path()).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_second_process_is_refused"])
        .env(LOCKED_DIR, dir.path())
        .env(LOCKED_PID, std::process::id().to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_path_that_is_a_file_or_inside_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "text").unwrap();
    assert!(matches!(refused(&file), OpenError::NotADirectory { .. }));
    let inside = refused(&file.join("sub"));
    assert!(matches!(inside, OpenError::NotADirectory { .. }), "{inside}");
}

#[test]
fn files_that_are_not_ours_are_refused_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("comity.redb");
    fs::write(&path, "a text of some length").unwrap();
    assert!(matches!(refused(dir.path()), OpenError::Foreign { .. }));
    assert_eq!(fs::read(&path).unwrap(), b"a text of some length");
    fs::write(&path, "").unwrap();
    assert!(matches!(refused(dir.path()), OpenError::Damaged { .. }));
    fs::remove_file(&path).unwrap();
    drop(Database::create(&path).unwrap());
    assert!(matches!(refused(dir.path()), OpenError::Foreign { .. }));
    assert!(!dir.path().join("comity.instance").exists());
}

#[test]
fn a_newer_format_is_refused_naming_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let database = Database::open(dir.path().join("comity.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let format = 7u32.to_be_bytes();
    transaction.open_table(META).unwrap().insert("format", format.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::NewerFormat { found: 7, supported: 3, .. }));
    assert!(error.to_string().ends_with("has format version 7; this build reads up to version 3"));
}

/// A store as the first version wrote it: all in the database, no log.
fn write_version_1(dir: &Path) {
    const LOG: TableDefinition<'static, &[u8; 40], &[u8]> = TableDefinition::new("log");
    const STATE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("state");
    let database = Database::create(dir.join("comity.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut meta = transaction.open_table(META).unwrap();
    meta.insert("kind", b"comity store".as_slice()).unwrap();
    meta.insert("format", 1u32.to_be_bytes().as_slice()).unwrap();
    drop(meta);
    let mut key = [9; 40];
    key[32..].copy_from_slice(&1u64.to_be_bytes());
    transaction.open_table(LOG).unwrap().insert(&key, b"entry".as_slice()).unwrap();
    transaction.open_table(STATE).unwrap().insert(b"key".as_slice(), b"value".as_slice()).unwrap();
    transaction.commit().unwrap();
    fs::write(dir.join("comity.instance"), [5; 16]).unwrap();
}

#[test]
fn a_store_of_version_1_is_opened_and_brought_to_this_version() {
    let dir = tempfile::tempdir().unwrap();
    write_version_1(dir.path());
    let mut opened = open(dir.path()).unwrap();
    assert!(!opened.created && opened.damage.is_none());
    let token = opened.instance;
    opened.store.commit(Batch { facts: vec![(vec![1], Some(vec![2]))], ..Batch::default() }).unwrap();
    opened.syncer.sync().unwrap();
    drop(opened);
    let opened = open(dir.path()).unwrap();
    assert_eq!(opened.instance, token);
    assert_eq!(opened.store.get(b"key"), Ok(Some(b"value".to_vec())));
    assert_eq!(opened.store.get(&[1]), Ok(Some(vec![2])));
    let (space, lane) = (SpaceId([9; 16]), OriginId([9; 16]));
    assert_eq!(opened.store.lane_entry(&space, &lane, 1), Ok(Some(b"entry".to_vec())));
    drop(opened);
    let database = Database::open(dir.path().join("comity.redb")).unwrap();
    let meta = database.begin_read().unwrap().open_table(META).unwrap();
    assert_eq!(meta.get("format").unwrap().unwrap().value(), 3u32.to_be_bytes());
}

#[test]
fn a_damaged_log_is_kept_and_changes_the_instance() {
    let dir = tempfile::tempdir().unwrap();
    let killed = dir.path().join("killed");
    let mut opened = open(&dir.path().join("original")).unwrap();
    for number in 0..3 {
        let batch = Batch { facts: vec![(vec![1], Some(vec![number]))], ..Batch::default() };
        opened.store.commit(batch).unwrap();
        opened.syncer.sync().unwrap();
    }
    // As a kill would leave it.
    copy(&dir.path().join("original"), &killed);
    let marker = fs::read(killed.join("comity.instance")).unwrap();
    let log = killed.join("log/0000000001.log");
    let mut bytes = fs::read(&log).unwrap();
    bytes[1024 + 70] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let opened = open(&killed).unwrap();
    let damage = opened.damage.unwrap();
    assert_eq!((damage.group, damage.through, damage.readable), (2, 3, 1));
    assert_eq!(damage.files, [killed.join("log/0000000001.damaged")]);
    assert_eq!(fs::read(&damage.files[0]).unwrap(), bytes);
    assert_ne!(fs::read(killed.join("comity.instance")).unwrap(), marker);
    assert_eq!(opened.store.get(&[1]), Ok(Some(vec![0])));
}

#[test]
fn a_data_file_cut_short_or_overwritten_is_refused_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let path = dir.path().join("comity.redb");
    let whole = fs::read(&path).unwrap();
    for length in [8, 100, 4096, whole.len() / 2] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = refused(dir.path());
        assert!(matches!(error, OpenError::Damaged { .. } | OpenError::Foreign { .. }), "{error}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::DataMissing { .. }));
}

#[test]
fn a_creation_that_was_cut_short_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("comity.redb.new"), [0; 5000]).unwrap();
    assert!(open(dir.path()).unwrap().created);
    assert!(!dir.path().join("comity.redb.new").exists());
}

#[test]
fn the_instance_token_survives_reopening_and_moving_but_not_copying() {
    let dir = tempfile::tempdir().unwrap();
    let (original, moved, copied) =
        (dir.path().join("original"), dir.path().join("moved"), dir.path().join("copied"));
    let mut opened = open(&original).unwrap();
    let token = opened.instance;
    opened.store.commit(Batch { facts: vec![(vec![1], Some(vec![2]))], ..Batch::default() }).unwrap();
    opened.syncer.sync().unwrap();
    drop(opened);
    assert_eq!(open(&original).unwrap().instance, token);
    fs::rename(&original, &moved).unwrap();
    assert_eq!(open(&moved).unwrap().instance, token);
    if cfg!(unix) {
        copy(&moved, &copied);
        let copy = open(&copied).unwrap();
        assert_ne!(copy.instance, token);
        assert_eq!(copy.store.get(&[1]), Ok(Some(vec![2])));
        assert_eq!(open(&moved).unwrap().instance, token);
    }
}
