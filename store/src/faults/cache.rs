//! What of a disk's changes is durable, and what a power cut leaves of the rest.

use std::collections::BTreeMap;

use super::image::{Image, Operation};

/// What a power cut leaves of what was not synced. A sync that was not complete makes nothing certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// None of it.
    Nothing,
    /// All of it.
    All,
    /// Each write, change of a length or change of a name by chance, whole.
    Operations,
    /// As [`Tear::Operations`], but of a write each sector of 512 bytes by chance.
    Sectors,
}

/// Keeps apart what is durable and what only waits to be.
#[derive(Debug)]
pub(super) struct WriteCache {
    durable: Image,
    /// Writes and lengths, for each file in their order.
    files: BTreeMap<usize, Vec<Operation>>,
    /// Changes of names in the directory of the log, in their order.
    names: Vec<Operation>,
    /// Of those of the database and its copy.
    data_names: Vec<Operation>,
}

impl WriteCache {
    pub(super) fn new(durable: Image) -> Self {
        Self { durable, files: BTreeMap::new(), names: Vec::new(), data_names: Vec::new() }
    }

    pub(super) fn change(&mut self, operation: &Operation) {
        match operation {
            Operation::Write { file, .. } | Operation::SetLen { file, .. } => {
                self.files.entry(*file).or_default().push(operation.clone());
            }
            Operation::Create { .. } | Operation::Rename { .. } | Operation::Remove { .. } => {
                self.names.push(operation.clone());
            }
            Operation::CreateCopy { .. } | Operation::InstallCopy | Operation::RemoveCopy => {
                self.data_names.push(operation.clone());
            }
            Operation::SyncDataDirectory => {
                let synced = std::mem::take(&mut self.data_names);
                synced.iter().for_each(|pending| self.durable.apply(pending));
            }
            Operation::Sync { file } => {
                let synced = self.files.remove(file).unwrap_or_default();
                synced.iter().for_each(|pending| self.durable.apply(pending));
            }
            Operation::SyncDirectory => {
                let synced = std::mem::take(&mut self.names);
                synced.iter().for_each(|pending| self.durable.apply(pending));
            }
            Operation::Install { .. } | Operation::Renew => self.durable.apply(operation),
        }
    }

    pub(super) fn durable(&mut self) -> &mut Image {
        &mut self.durable
    }

    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.files.values().map(Vec::len).sum::<usize>() + self.names.len() + self.data_names.len()
    }

    /// What a power cut may leave: everything durable, and of the rest what `tear` says.
    pub(super) fn cut(&self, tear: Tear, random: &mut dyn FnMut() -> u64) -> Image {
        let mut image = self.durable.clone();
        let mut kept = || random().is_multiple_of(2);
        for operation in self.files.values().flatten().chain(&self.names).chain(&self.data_names) {
            match tear {
                Tear::Nothing => {}
                Tear::All => image.apply(operation),
                Tear::Operations => {
                    if kept() {
                        image.apply(operation);
                    }
                }
                Tear::Sectors => image.apply_torn(operation, &mut kept),
            }
        }
        image
    }
}
