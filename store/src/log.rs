//! The log of record: one record for each synced group, in preallocated append-only files.
//!
//! A group is durable once its record is: one write and one sync. The database follows without syncs of
//! its own, and a checkpoint of it lets go of the files whose groups it holds. The bytes are described in
//! `docs/storage.md`.

mod files;
#[cfg(feature = "faults")]
mod forgery;
mod payload;
mod record;
mod scan;
mod writer;

#[cfg(any(test, feature = "faults"))]
pub(crate) use files::LogFile;
pub(crate) use files::{Directory, LogDir, file_name, kept_name, number_of};
#[cfg(feature = "faults")]
pub use forgery::{Forged, forge};
pub(crate) use payload::{Change, changes, layer_changes};
#[cfg(any(test, feature = "faults"))]
pub(crate) use scan::record_range;
pub(crate) use scan::{Found, Scanned, scan};
pub(crate) use writer::{End, LogWriter, NEW_SUFFIX, prepare};

/// The header of file 3 and in it the record of group 8, as `docs/storage.md` has them.
#[cfg(test)]
pub(crate) fn golden() -> (Vec<u8>, Vec<u8>) {
    use comity_engine::{Batch, LaneRecord, LaneSpan};

    let entry = LaneRecord {
        space: comity_crdts::SpaceId([0xa1; 16]),
        lane: comity_crdts::OriginId([0xb2; 16]),
        lsn: 258,
        bytes: b"entry".to_vec(),
    };
    let span = LaneSpan { space: entry.space, lane: entry.lane, first: 0, count: 0 };
    let mut layer = crate::layer::Layer::default();
    layer.apply(Batch {
        entries: vec![entry],
        dropped: vec![LaneSpan { first: 250, count: 5, ..span }],
        facts: vec![(b"gone".to_vec(), None)],
        state: vec![(b"key".to_vec(), Some(b"value".to_vec()))],
    });
    let header = record::file_header(3, &[0xc3; 16]).to_vec();
    let (salt, chain) = record::read_file_header(&header, 3).unwrap();
    let mut bytes = Vec::new();
    record::frame(&layer, &mut bytes);
    record::seal(&mut bytes, &salt, 512, &record::Framed { group: 8, durable_through: 7, chain });
    let file = [header.clone(), bytes.clone()].concat();
    assert_eq!(record::read(&file, &salt, 512).unwrap().framed.group, 8);
    (header, bytes)
}
