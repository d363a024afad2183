//! Somebody who types a text into a document.

use comity_crdts::RawChange;
use comity_crdts::automerge::transaction::{CommitOptions, Transactable};
use comity_crdts::automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc};
use comity_engine::wire::Op;

use crate::Failure;

/// Prose of any sort.
const PROSE: &str = include_str!("../../../LICENSE-APACHE");

/// The document, and where the typist stands in it.
pub(super) struct Typist {
    document: Automerge,
    text: ObjId,
    cursor: usize,
    prose: Box<dyn Iterator<Item = char>>,
}

impl Typist {
    pub(super) fn new() -> Result<Self, Failure> {
        let mut document = Automerge::new().with_actor([5_u8; 16].into());
        let text = document.transact(|tx| tx.put_object(ROOT, "text", ObjType::Text));
        let text = text.map_err(|failure| failure.error)?.result;
        // Words with one space between them.
        let words = PROSE.split_whitespace().cycle();
        let prose = Box::new(words.flat_map(|word| word.chars().chain([' '])));
        Ok(Self { document, text, cursor: 0, prose })
    }

    /// Types the next character.
    pub(super) fn keystroke(&mut self, at: comity_crdts::Hlc) -> (Op, usize) {
        let character = self.prose.next().unwrap_or(' ');
        self.cursor += 1;
        let op = self.edit(at, (self.cursor - 1, 0, character));
        (op, character.len_utf8())
    }

    /// Erases the character before the cursor, or types one where there is none.
    pub(super) fn backspace(&mut self, at: comity_crdts::Hlc) -> (Op, usize) {
        if self.cursor == 0 {
            return self.keystroke(at);
        }
        self.cursor -= 1;
        (self.edit(at, (self.cursor, 1, '\0')), 0)
    }

    /// Puts the cursor anywhere.
    pub(super) fn jump(&mut self, to: u64) {
        self.cursor = to as usize % (self.document.length(&self.text) + 1);
    }

    fn edit(&mut self, at: comity_crdts::Hlc, (place, erased, typed): (usize, isize, char)) -> Op {
        let typed: String = [typed].iter().take(1 - erased as usize).collect();
        let mut tx = self.document.transaction();
        tx.splice_text(&self.text, place, erased, &typed).expect("the place is in the text");
        tx.commit_with(CommitOptions::default().with_time((at.millis() / 1_000) as i64));
        let change = self.document.get_last_local_change().expect("something was typed");
        Op::DocumentChange(RawChange::parse(change.raw_bytes()).expect("a small change is sound"))
    }
}
