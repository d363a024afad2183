//! The bytes of a simulated file.

use std::io;
use std::sync::Arc;

/// The unit in which files get their space.
pub(super) const PAGE: usize = 4096;

/// The bytes of a file, cheap to clone: clones share the pages that neither has changed since.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// A page that is missing holds zeros.
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    length: usize,
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, bytes);
        content
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// For each page whether it holds anything but zeros.
    pub(super) fn used(&self) -> Vec<bool> {
        self.pages.iter().map(Option::is_some).collect()
    }

    pub(super) fn set_len(&mut self, length: usize) {
        if length < self.length {
            let cut = length.next_multiple_of(PAGE).min(self.length);
            self.fill_zeros(length, cut);
        }
        self.pages.resize(length.div_ceil(PAGE), None);
        self.length = length;
    }

    fn fill_zeros(&mut self, from: usize, until: usize) {
        if from < until {
            self.write(from, &vec![0; until - from]);
        }
    }

    pub(super) fn write(&mut self, mut offset: usize, mut data: &[u8]) {
        if self.length < offset + data.len() {
            self.set_len(offset + data.len());
        }
        while !data.is_empty() {
            let (page, at) = (offset / PAGE, offset % PAGE);
            let count = data.len().min(PAGE - at);
            let (written, rest) = data.split_at(count);
            let page = &mut self.pages[page];
            // Files are made full of zeros, most of which nothing overwrites for long.
            if page.is_some() || written.iter().any(|byte| *byte != 0) {
                let page = page.get_or_insert_with(|| Arc::new([0; PAGE]));
                Arc::make_mut(page)[at..at + count].copy_from_slice(written);
            }
            (offset, data) = (offset + count, rest);
        }
    }

    pub(super) fn read(&self, mut offset: usize, mut out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len()).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !out.is_empty() {
            let (page, at) = (offset / PAGE, offset % PAGE);
            let count = out.len().min(PAGE - at);
            match &self.pages[page] {
                Some(page) => out[..count].copy_from_slice(&page[at..at + count]),
                None => out[..count].fill(0),
            }
            (offset, out) = (offset + count, &mut out[count..]);
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        self.read(0, &mut bytes).expect("a content can be read up to its length");
        bytes
    }

    pub(super) fn flip(&mut self, offset: usize, bit: u32) {
        let mut byte = [0];
        if self.read(offset, &mut byte).is_ok() {
            self.write(offset, &[byte[0] ^ (1 << (bit % u8::BITS))]);
        }
    }
}
