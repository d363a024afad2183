//! The two forms of an operation: the canonical one that is hashed, and the compact one that is stored and sent.

use comity_crdts::limits::{
    CONTEXT_DOTS_MAX, DOCUMENT_CHANGE_BYTES_MAX, ELEMENT_BYTES_MAX, EXTENSION_BYTES_MAX, KEY_BYTES_MAX,
    LANES_MAX, MAP_DEPTH_MAX, VALUE_BYTES_MAX,
};
use comity_crdts::{
    DecodeError, Dot, ExtensionTag, Hlc, Observed, OriginId, RawChange, Reader, ReplicaId, ResetColumn,
    Value, Writer,
};

use crate::dictionary::Dictionary;
use crate::elision::refused;
use crate::op::{Op, Role};

const COUNTER_ADD: u8 = 1;
const SET_ADD: u8 = 2;
const SET_REMOVE: u8 = 3;
const REGISTER_SET: u8 = 4;
const REGISTER_RESET: u8 = 5;
const DOCUMENT_CHANGE: u8 = 6;
const GRANT: u8 = 7;
const COUNTER_RESET: u8 = 8;
const SET_CLEAR: u8 = 9;
const FLAG_ENABLE: u8 = 10;
const FLAG_DISABLE: u8 = 11;
const DW_FLAG_ENABLE: u8 = 12;
const DW_FLAG_DISABLE: u8 = 13;
const RW_SET_ADD: u8 = 14;
const RW_SET_REMOVE: u8 = 15;
const BOUNDED_INCREMENT: u8 = 16;
const BOUNDED_DECREMENT: u8 = 17;
const BOUNDED_TRANSFER: u8 = 18;
const NESTED: u8 = 19;
const DOCUMENT_REMOVE: u8 = 20;
const REVOKE: u8 = 21;

/// How origins and stamps are written: in full, or as references and differences.
trait Form {
    fn origin(&mut self, origin: &OriginId, out: &mut Writer);
    fn stamp(&self, stamp: Hlc, out: &mut Writer);
    fn document_change(&mut self, change: &RawChange, out: &mut Writer);
}

struct Canonical;

impl Form for Canonical {
    fn origin(&mut self, origin: &OriginId, out: &mut Writer) {
        out.bytes(&origin.0);
    }

    fn stamp(&self, stamp: Hlc, out: &mut Writer) {
        out.bytes(&stamp.bits().to_be_bytes());
    }

    fn document_change(&mut self, change: &RawChange, out: &mut Writer) {
        out.bytes(&change.hash());
    }
}

/// Where an operation stands: the stamp of its change set, and the reference of its object.
type Site = (Hlc, u64);

struct Compact<'a> {
    site: Site,
    dictionary: &'a mut Dictionary,
}

impl Form for Compact<'_> {
    fn origin(&mut self, origin: &OriginId, out: &mut Writer) {
        self.dictionary.write_origin(origin, out);
    }

    fn stamp(&self, stamp: Hlc, out: &mut Writer) {
        let ahead = stamp.bits().checked_sub(self.site.0.bits());
        out.varint(ahead.expect("a write is stamped no earlier than its change set"));
    }

    fn document_change(&mut self, change: &RawChange, out: &mut Writer) {
        let (at, document) = self.site;
        match self.dictionary.elision() {
            Some(elision) => elision.write(document, at, change, out),
            None => out.blob(change.bytes()),
        }
    }
}

impl Op {
    /// The canonical form that is hashed: full ids, and a document change by its own hash.
    pub(super) fn encode_canonical(&self, out: &mut Writer) {
        self.encode_with(out, &mut Canonical);
    }

    /// The compact form that is stored and sent: ids by dictionary reference, stamps relative to that of
    /// `site`, and what a run leaves out of document changes.
    pub(crate) fn encode(&self, site: Site, out: &mut Writer, dictionary: &mut Dictionary) {
        self.encode_with(out, &mut Compact { site, dictionary });
    }

    fn encode_with(&self, out: &mut Writer, form: &mut dyn Form) {
        out.u8(self.tag());
        match self {
            Self::CounterAdd(delta) => out.varint_signed(*delta),
            Self::CounterReset { columns } => {
                out.varint(columns.len() as u64);
                for column in columns {
                    form.origin(&column.origin, out);
                    out.varint(column.through.0);
                    out.varint(u64::from(column.through.1));
                    out.varint_wide_signed(column.sum);
                }
            }
            Self::SetAdd { element, observed } | Self::SetRemove { element, observed } => {
                element.encode(out);
                encode_dots(observed, out, form);
            }
            Self::SetClear { observed } => {
                out.varint(observed.len() as u64);
                for (origin, seq) in observed.iter() {
                    form.origin(&origin, out);
                    out.varint(seq);
                }
            }
            Self::RegisterSet { value, hlc, observed } => {
                value.encode(out);
                form.stamp(*hlc, out);
                encode_dots(observed, out, form);
            }
            Self::RegisterReset { observed }
            | Self::FlagEnable { observed }
            | Self::FlagDisable { observed } => encode_dots(observed, out, form),
            Self::DocumentChange(change) => form.document_change(change, out),
            Self::DocumentRemove { heads } => {
                out.varint(heads.len() as u64);
                heads.iter().for_each(|head| out.bytes(head));
            }
            Self::Grant { replica, role } => {
                out.bytes(&replica.0);
                out.u8(*role as u8);
            }
            Self::Revoke { replica } => out.bytes(&replica.0),
            Self::DwFlagEnable | Self::DwFlagDisable => {}
            Self::RwSetAdd { element } | Self::RwSetRemove { element } => element.encode(out),
            Self::BoundedIncrement(amount) | Self::BoundedDecrement(amount) => out.varint(*amount),
            Self::BoundedTransfer { to, amount } => {
                form.origin(to, out);
                out.varint(*amount);
            }
            Self::Nested { path, op } => {
                out.varint(path.len() as u64);
                path.iter().for_each(|key| out.blob(key.as_bytes()));
                op.encode_with(out, form);
            }
            Self::Extension { body, .. } => out.blob(body),
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::CounterAdd(_) => COUNTER_ADD,
            Self::CounterReset { .. } => COUNTER_RESET,
            Self::SetAdd { .. } => SET_ADD,
            Self::SetRemove { .. } => SET_REMOVE,
            Self::SetClear { .. } => SET_CLEAR,
            Self::RegisterSet { .. } => REGISTER_SET,
            Self::RegisterReset { .. } => REGISTER_RESET,
            Self::DocumentChange(_) => DOCUMENT_CHANGE,
            Self::DocumentRemove { .. } => DOCUMENT_REMOVE,
            Self::Grant { .. } => GRANT,
            Self::Revoke { .. } => REVOKE,
            Self::FlagEnable { .. } => FLAG_ENABLE,
            Self::FlagDisable { .. } => FLAG_DISABLE,
            Self::DwFlagEnable => DW_FLAG_ENABLE,
            Self::DwFlagDisable => DW_FLAG_DISABLE,
            Self::RwSetAdd { .. } => RW_SET_ADD,
            Self::RwSetRemove { .. } => RW_SET_REMOVE,
            Self::BoundedIncrement(_) => BOUNDED_INCREMENT,
            Self::BoundedDecrement(_) => BOUNDED_DECREMENT,
            Self::BoundedTransfer { .. } => BOUNDED_TRANSFER,
            Self::Nested { .. } => NESTED,
            Self::Extension { tag, .. } => tag.get(),
        }
    }

    /// Reads the compact form.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub(crate) fn decode(
        site: Site,
        reader: &mut Reader<'_>,
        dictionary: &mut Dictionary,
    ) -> Result<Self, DecodeError> {
        match reader.u8("operation tag")? {
            NESTED => decode_nested(site, reader, dictionary),
            tag => decode_tagged(tag, site, reader, dictionary),
        }
    }
}

fn decode_tagged(
    tag: u8,
    site: Site,
    reader: &mut Reader<'_>,
    dictionary: &mut Dictionary,
) -> Result<Op, DecodeError> {
    Ok(match tag {
        COUNTER_ADD => Op::CounterAdd(reader.varint_signed("counter delta")?),
        COUNTER_RESET => Op::CounterReset { columns: decode_columns(reader, dictionary)? },
        SET_ADD => Op::SetAdd {
            element: Value::decode(reader, ELEMENT_BYTES_MAX)?,
            observed: decode_dots(reader, dictionary)?,
        },
        SET_REMOVE => Op::SetRemove {
            element: Value::decode(reader, ELEMENT_BYTES_MAX)?,
            observed: decode_dots(reader, dictionary)?,
        },
        SET_CLEAR => Op::SetClear { observed: decode_observed(reader, dictionary)? },
        REGISTER_SET => Op::RegisterSet {
            value: Value::decode(reader, VALUE_BYTES_MAX)?,
            hlc: decode_stamp(site.0, reader)?,
            observed: decode_dots(reader, dictionary)?,
        },
        REGISTER_RESET => Op::RegisterReset { observed: decode_dots(reader, dictionary)? },
        DOCUMENT_CHANGE => Op::DocumentChange(match dictionary.elision() {
            Some(elision) => elision.read(site.1, site.0, reader)?,
            None => {
                let bytes = reader.blob(DOCUMENT_CHANGE_BYTES_MAX, "document change")?;
                RawChange::parse(bytes).map_err(refused)?
            }
        }),
        DOCUMENT_REMOVE => Op::DocumentRemove { heads: decode_heads(reader)? },
        GRANT => {
            let replica = ReplicaId(reader.array("granted replica")?);
            let tag = reader.u8("granted role")?;
            let unknown = DecodeError::UnknownTag { what: "granted role", tag: u64::from(tag) };
            Op::Grant { replica, role: Role::from_tag(tag).ok_or(unknown)? }
        }
        REVOKE => Op::Revoke { replica: ReplicaId(reader.array("revoked replica")?) },
        FLAG_ENABLE => Op::FlagEnable { observed: decode_dots(reader, dictionary)? },
        FLAG_DISABLE => Op::FlagDisable { observed: decode_dots(reader, dictionary)? },
        DW_FLAG_ENABLE => Op::DwFlagEnable,
        DW_FLAG_DISABLE => Op::DwFlagDisable,
        RW_SET_ADD => Op::RwSetAdd { element: Value::decode(reader, ELEMENT_BYTES_MAX)? },
        RW_SET_REMOVE => Op::RwSetRemove { element: Value::decode(reader, ELEMENT_BYTES_MAX)? },
        BOUNDED_INCREMENT => Op::BoundedIncrement(reader.varint("increment")?),
        BOUNDED_DECREMENT => Op::BoundedDecrement(reader.varint("decrement")?),
        BOUNDED_TRANSFER => {
            let to = dictionary.read_origin(reader)?;
            Op::BoundedTransfer { to, amount: reader.varint("rights transferred")? }
        }
        tag => {
            let unknown = DecodeError::UnknownTag { what: "operation", tag: u64::from(tag) };
            let tag = ExtensionTag::new(tag).ok_or(unknown)?;
            Op::Extension { tag, body: reader.blob(EXTENSION_BYTES_MAX, "extension")?.to_vec() }
        }
    })
}

fn decode_nested(
    site: Site,
    reader: &mut Reader<'_>,
    dictionary: &mut Dictionary,
) -> Result<Op, DecodeError> {
    let depth = reader.count(MAP_DEPTH_MAX, "map keys")?;
    let mut path = Vec::with_capacity(depth);
    for _ in 0..depth {
        let key = reader.text(KEY_BYTES_MAX, "map key")?;
        if key.is_empty() || key.contains('\0') {
            return Err(DecodeError::Invalid { what: "map key", rule: "is non-empty, without NUL" });
        }
        path.push(key.to_owned());
    }
    let tag = reader.u8("operation tag")?;
    let op = decode_tagged(tag, site, reader, dictionary)?;
    if path.is_empty() || !op.nests() {
        return Err(DecodeError::Invalid {
            what: "operation in a map",
            rule: "is for something a map can hold",
        });
    }
    Ok(Op::Nested { path, op: Box::new(op) })
}

fn encode_dots(observed: &[Dot], out: &mut Writer, form: &mut dyn Form) {
    out.varint(observed.len() as u64);
    for dot in observed {
        form.origin(&dot.origin, out);
        out.varint(dot.seq);
        out.varint(u64::from(dot.index));
    }
}

fn decode_dots(reader: &mut Reader<'_>, dictionary: &mut Dictionary) -> Result<Vec<Dot>, DecodeError> {
    let count = reader.count(CONTEXT_DOTS_MAX, "observed dots")?;
    let mut dots = Vec::with_capacity(count);
    for _ in 0..count {
        let origin = dictionary.read_origin(reader)?;
        let seq = reader.varint("dot seq")?;
        let index = reader.varint_max(u64::from(u16::MAX), "dot index")? as u16;
        let dot = Dot { origin, seq, index };
        if dots.last().is_some_and(|last| *last >= dot) {
            return Err(DecodeError::NotCanonical { what: "observed dots" });
        }
        dots.push(dot);
    }
    Ok(dots)
}

fn decode_observed(reader: &mut Reader<'_>, dictionary: &mut Dictionary) -> Result<Observed, DecodeError> {
    let mut observed: Vec<(OriginId, u64)> = Vec::new();
    for _ in 0..reader.count(LANES_MAX, "observed origins")? {
        let origin = dictionary.read_origin(reader)?;
        let seq = reader.varint("observed seq")?;
        if seq == 0 || observed.last().is_some_and(|(last, _)| *last >= origin) {
            return Err(DecodeError::NotCanonical { what: "observed origins" });
        }
        observed.push((origin, seq));
    }
    Ok(observed.into_iter().collect())
}

fn decode_columns(
    reader: &mut Reader<'_>,
    dictionary: &mut Dictionary,
) -> Result<Vec<ResetColumn>, DecodeError> {
    let mut columns: Vec<ResetColumn> = Vec::new();
    for _ in 0..reader.count(LANES_MAX, "counter columns")? {
        let origin = dictionary.read_origin(reader)?;
        let seq = reader.varint("last addition")?;
        let index = reader.varint_max(u64::from(u16::MAX), "last addition")? as u16;
        if columns.last().is_some_and(|last| last.origin >= origin) {
            return Err(DecodeError::NotCanonical { what: "counter columns" });
        }
        columns.push(ResetColumn {
            origin,
            through: (seq, index),
            sum: reader.varint_wide_signed("counter sum")?,
        });
    }
    Ok(columns)
}

fn decode_heads(reader: &mut Reader<'_>) -> Result<Vec<[u8; 32]>, DecodeError> {
    let mut heads: Vec<[u8; 32]> = Vec::new();
    for _ in 0..reader.count(CONTEXT_DOTS_MAX, "document heads")? {
        let head = reader.array("document head")?;
        if heads.last().is_some_and(|last| *last >= head) {
            return Err(DecodeError::NotCanonical { what: "document heads" });
        }
        heads.push(head);
    }
    Ok(heads)
}

fn decode_stamp(at: Hlc, reader: &mut Reader<'_>) -> Result<Hlc, DecodeError> {
    let ahead = reader.varint("register stamp")?;
    let bits = at.bits().checked_add(ahead);
    bits.map(Hlc::from_bits).ok_or(DecodeError::Invalid { what: "register stamp", rule: "has 64 bits" })
}
