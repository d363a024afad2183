//! A version that does not exist: each operation of this one once more, under a number of a later one. It does the same, so
//! what becomes of replicas that did not know it is judged like everything else.

use comity_crdts::{Dot, ExtensionTag, Hlc, Kind, ObjectAddress, Reader, Writer};

use crate::dictionary::Dictionary;
use crate::extension::{Made, Meaning};
use crate::op::Op;
use crate::receive::names_only;

/// The least number of a later version's.
const FIRST: ExtensionTag = match ExtensionTag::new(ExtensionTag::MIN) {
    Some(tag) => tag,
    None => unreachable!(),
};

/// Says an operation of this version, in the compact form against the change set's stamp, with a dictionary of its own.
const FUTURE_OPERATION: ExtensionTag = FIRST;

/// Objects that are counters.
pub(crate) const FUTURE_KIND: Kind = Kind::Extension(FIRST);

pub(super) fn is_known(tag: ExtensionTag) -> bool {
    tag == FUTURE_OPERATION
}

/// As what objects of a kind are stored.
pub(crate) fn stored_as(kind: Kind) -> Kind {
    if kind == FUTURE_KIND { Kind::Counter } else { kind }
}

/// An operation on an object of a kind, in a change set made at `at`, as the version that does not exist has it; documents,
/// members and settings it leaves as they are.
pub(crate) fn wrapped(op: Op, kind: Kind, at: Hlc) -> Op {
    if !can_be_wrapped(&op) || kind == Kind::Settings {
        return op;
    }
    let mut body = Writer::new();
    op.encode((at, 0), &mut body, &mut Dictionary::default());
    Op::Extension { tag: FUTURE_OPERATION, body: body.finish() }
}

/// One that does nothing, because it is not well said.
pub(crate) fn touch() -> Op {
    Op::Extension { tag: FUTURE_OPERATION, body: Vec::new() }
}

fn can_be_wrapped(op: &Op) -> bool {
    !matches!(op.kind(), Kind::Document | Kind::Members | Kind::Extension(_))
}

pub(super) fn meaning(
    (at, context): Made<'_>,
    address: &ObjectAddress,
    (dot, body): (Dot, &[u8]),
) -> Meaning {
    let mut reader = Reader::new(body);
    let op = Op::decode((at, 0), &mut reader, &mut Dictionary::default());
    let op = op.and_then(|op| reader.finish("future operation").map(|()| op));
    let is_sound = |op: &Op| {
        can_be_wrapped(op)
            && op.is_for(stored_as(address.kind()))
            && names_only(op, (&dot.origin, dot.seq), context)
    };
    op.ok().filter(is_sound).map_or(Meaning::Nothing, Meaning::Does)
}
