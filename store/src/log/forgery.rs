//! Files of the log that verify, whatever they say.

use crate::log::record::{Framed, file_header, frame_bytes, read_file_header, seal};

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub struct Forged<'a> {
    /// The number of its group.
    pub group: u64,
    /// The last group that it says was durable before it.
    pub durable_through: u64,
    /// Its payload, which need not be a group.
    pub payload: &'a [u8],
}

/// The file of that number with these records and `zeros` bytes after them. No disk can make one up: chance
/// does not meet a checksum. It takes whoever reads it to where a checksum no longer helps.
pub fn forge(number: u64, records: &[Forged<'_>], zeros: usize) -> Vec<u8> {
    let mut file = file_header(number, &[0x5a; 16]).to_vec();
    let (salt, mut chain) = read_file_header(&file, number).expect("it was just made");
    let mut record = Vec::new();
    for forged in records {
        frame_bytes(forged.payload, &mut record);
        let framed = Framed { group: forged.group, durable_through: forged.durable_through, chain };
        chain = seal(&mut record, &salt, file.len() as u64, &framed);
        file.extend_from_slice(&record);
    }
    file.resize(file.len() + zeros, 0);
    file
}
