//! Handles on objects: what can be done to each kind, by a write of its own, inside a transaction, and in a view.

mod bounded;
mod counter;
mod document;
mod flag;
mod map;
mod register;
pub(crate) mod set;

use std::sync::Arc;

use comity_crdts::{Kind, PolicyRegistry, SpaceId};
use comity_engine::{Location, ReadError, StateRead, Tx, TxError};

use crate::place::Place;
use crate::space::Space;
use crate::view::View;
use crate::write::Transact;

pub(crate) use bounded::load as load_bounded;
pub use bounded::{BoundedCounterHandle, Decrease, TxBoundedCounter};
pub use counter::{Counter, TxCounter};
pub use document::{DocumentAt, DocumentHandle, TxDocument};
pub use flag::{Flag, TxFlag};
pub use map::{Map, MapReader, TxMap};
pub use register::{Register, RegisterReader, TxRegister};
pub use set::{Set, SetReader, TxSet};

/// An object of a space, for writes of their own and for reads of the newest durable state.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) space: Space,
    pub(crate) place: Place,
}

impl Object {
    /// One transaction that does one thing to the object.
    pub(crate) fn write<R: Send + 'static>(
        &self,
        body: impl FnOnce(&mut Tx<'_>, &Location) -> Result<R, TxError> + Send + 'static,
    ) -> Transact<R> {
        let place = self.place.clone();
        self.space.transact(move |tx| body(tx.tx, &place.at()?))
    }

    /// Removes what is seen of the object here.
    pub(crate) fn remove(&self) -> Transact {
        let kind = self.place.kind;
        self.write(move |tx, at| tx.remove_kind_at(at, kind))
    }

    pub(crate) fn read<R>(
        &self,
        read: impl FnOnce(&dyn StateRead, &SpaceId, &Location) -> Result<R, ReadError>,
    ) -> Result<R, ReadError> {
        self.space.view()?.read(&self.place, read)
    }

    fn nested(&self, key: &str, kind: Kind) -> Self {
        Self { space: self.space.clone(), place: self.place.nested(key, kind) }
    }
}

/// An object inside a transaction.
pub(crate) struct TxObject<'o, 'a> {
    pub(crate) tx: &'o mut Tx<'a>,
    pub(crate) registry: &'o Arc<PolicyRegistry>,
    pub(crate) place: Place,
}

impl<'a> TxObject<'_, 'a> {
    pub(crate) fn write<R>(
        &mut self,
        body: impl FnOnce(&mut Tx<'a>, &Location) -> Result<R, TxError>,
    ) -> Result<R, TxError> {
        body(self.tx, &self.place.at()?)
    }

    fn remove(&mut self) -> Result<(), TxError> {
        let kind = self.place.kind;
        self.write(|tx, at| tx.remove_kind_at(at, kind))
    }

    pub(crate) fn read<R>(
        &self,
        read: impl FnOnce(&dyn StateRead, &SpaceId, &Location) -> Result<R, ReadError>,
    ) -> Result<R, TxError> {
        Ok(read(self.tx.state(), &self.tx.space(), &self.place.at()?)?)
    }

    fn nested(&mut self, key: &str, kind: Kind) -> TxObject<'_, 'a> {
        TxObject { tx: &mut *self.tx, registry: self.registry, place: self.place.nested(key, kind) }
    }
}

/// An object in a view.
#[derive(Clone)]
pub(crate) struct ViewObject<'v> {
    pub(crate) view: &'v View,
    pub(crate) place: Place,
}

impl<'v> ViewObject<'v> {
    pub(crate) fn read<R>(
        &self,
        read: impl FnOnce(&dyn StateRead, &SpaceId, &Location) -> Result<R, ReadError>,
    ) -> Result<R, ReadError> {
        self.view.read(&self.place, read)
    }

    fn nested(&self, key: &str, kind: Kind) -> ViewObject<'v> {
        ViewObject { view: self.view, place: self.place.nested(key, kind) }
    }
}
