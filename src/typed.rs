//! Objects read and written as an application's own types, by serde.

use std::marker::PhantomData;

use comity_crdts::{Dot, Value};
use comity_engine::{Location, TxError, set_contains_at, set_elements_at};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ContentError;
use crate::handles::{Object, Register, RegisterReader, Set, SetReader, TxRegister, TxSet, set};
use crate::place::Place;
use crate::write::Transact;

/// A register, a set, or what was read of one, whose values are an application's own type: what stands for them in
/// the object is in [`Value::from_serialize`]. It is made by `typed::<T>()` of each of them, wherever they come from:
/// a space, a map, a transaction or a view.
///
/// Types can differ from replica to replica, as versions of an application do: a type reads what it can make sense
/// of, and `#[serde(flatten)] rest: BTreeMap<String, Value>` keeps what it does not know. What cannot be read is an
/// error that names the object and the place in it, and is there still for whoever reads the object untyped.
///
/// ```no_run
/// # async fn example(space: comity::Space) -> Result<(), Box<dyn std::error::Error>> {
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Profile {
///     name: String,
///     languages: Vec<String>,
/// }
///
/// let ada = space.register("profiles", "ada").typed::<Profile>();
/// ada.write(&Profile { name: "Ada".to_owned(), languages: vec!["en".to_owned()] }).await?;
/// if let Some(profile) = ada.read()? {
///     println!("{} speaks {:?}", profile.name, profile.languages);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Typed<H, T> {
    handle: H,
    of: PhantomData<fn(&T) -> T>,
}

impl<H: Clone, T> Clone for Typed<H, T> {
    fn clone(&self) -> Self {
        Self::new(self.handle.clone())
    }
}

impl<H, T> Typed<H, T> {
    fn new(handle: H) -> Self {
        Self { handle, of: PhantomData }
    }

    /// What it was made of.
    pub fn untyped(self) -> H {
        self.handle
    }
}

macro_rules! typed {
    ($($handle:ty),+ $(,)?) => {$(
        impl $handle {
            /// The same, with an application's own type for its values.
            pub fn typed<T>(self) -> Typed<Self, T> {
                Typed::new(self)
            }
        }
    )+};
}

typed!(Register, RegisterReader, TxRegister<'_, '_>, Set, SetReader<'_>, TxSet<'_, '_>);

fn stored<T: Serialize + ?Sized>(value: &T, at: &Location) -> Result<Value, ContentError> {
    Value::from_serialize(value).map_err(|source| ContentError::Typed { location: at.clone(), source })
}

/// The value that stands for data whose place may be none.
fn stored_at<T: Serialize + ?Sized>(value: &T, place: &Place) -> Result<Value, ContentError> {
    stored(value, &place.at().map_err(|error| ContentError::Read(error.into()))?)
}

fn read<T: DeserializeOwned>(value: &Value, at: &Location) -> Result<T, ContentError> {
    value.to_typed().map_err(|source| ContentError::Typed { location: at.clone(), source })
}

/// A write of data that was made a value when it was given, so that it need not live as long as the write.
fn write<T: Serialize + ?Sized>(
    object: &Object,
    data: &T,
    write: impl FnOnce(&mut comity_engine::Tx<'_>, &Location, Value) -> Result<(), TxError> + Send + 'static,
) -> Transact {
    let value = stored_at(data, &object.place);
    object.write(move |tx, at| write(tx, at, value?))
}

impl<T: Serialize> Typed<Register, T> {
    /// As [`Register::write`].
    pub fn write(&self, value: &T) -> Transact {
        write(&self.handle.0, value, |tx, at, value| tx.register_write_at(at, value))
    }

    /// As [`Register::resolve`].
    pub fn resolve(&self, value: &T, seen: &[Dot]) -> Transact {
        let seen = seen.to_vec();
        write(&self.handle.0, value, move |tx, at, value| tx.register_resolve_at(at, value, &seen))
    }
}

impl<T: DeserializeOwned> Typed<Register, T> {
    /// The newest durable value under the collection's policy; `None` when the register is empty.
    ///
    /// # Errors
    /// [`ContentError`]; `Undecided` when the policy shows several.
    pub fn read(&self) -> Result<Option<T>, ContentError> {
        self.reader()?.value()
    }

    /// Every concurrent value of the newest durable state, with the dot by which a resolution names it.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn siblings(&self) -> Result<Vec<(Dot, T)>, ContentError> {
        self.reader()?.siblings()
    }

    fn reader(&self) -> Result<Typed<RegisterReader, T>, ContentError> {
        Ok(self.handle.read()?.typed())
    }
}

impl<T: DeserializeOwned> Typed<RegisterReader, T> {
    /// As [`RegisterReader::value`].
    ///
    /// # Errors
    /// [`ContentError`]; `Undecided` when the policy shows several.
    pub fn value(&self) -> Result<Option<T>, ContentError> {
        self.handle.value()?.map(|value| read(&value, self.handle.location())).transpose()
    }

    /// As [`RegisterReader::latest`].
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn latest(&self) -> Result<Option<T>, ContentError> {
        self.handle.latest().map(|value| read(&value, self.handle.location())).transpose()
    }

    /// As [`RegisterReader::siblings`].
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn siblings(&self) -> Result<Vec<(Dot, T)>, ContentError> {
        let siblings = self.handle.siblings();
        siblings.iter().map(|(dot, value)| Ok((*dot, read(value, self.handle.location())?))).collect()
    }
}

impl<T: Serialize> Typed<TxRegister<'_, '_>, T> {
    /// As [`TxRegister::write`].
    ///
    /// # Errors
    /// [`TxError`] when a name or the value is out of limits, or the data is no value.
    pub fn write(&mut self, value: &T) -> Result<(), TxError> {
        self.handle.0.write(|tx, at| tx.register_write_at(at, stored(value, at)?))
    }

    /// As [`TxRegister::resolve`].
    ///
    /// # Errors
    /// As [`Typed::write`].
    pub fn resolve(&mut self, value: &T, seen: &[Dot]) -> Result<(), TxError> {
        self.handle.0.write(|tx, at| tx.register_resolve_at(at, stored(value, at)?, seen))
    }
}

impl<T: DeserializeOwned> Typed<TxRegister<'_, '_>, T> {
    /// The value under the collection's policy; `None` when the register is empty.
    ///
    /// # Errors
    /// [`TxError`], with a [`ContentError`] as the reason when the policy shows several values, or what is there is
    /// other data.
    pub fn read(&self) -> Result<Option<T>, TxError> {
        Ok(self.handle.read()?.typed().value()?)
    }

    /// Every concurrent value, with the dot by which a resolution names it.
    ///
    /// # Errors
    /// As [`Typed::read`].
    pub fn siblings(&self) -> Result<Vec<(Dot, T)>, TxError> {
        Ok(self.handle.read()?.typed().siblings()?)
    }
}

impl<T: Serialize> Typed<Set, T> {
    /// As [`Set::insert`].
    pub fn insert(&self, element: &T) -> Transact {
        write(&self.handle.0, element, set::insert)
    }

    /// As [`Set::remove`].
    pub fn remove(&self, element: &T) -> Transact {
        write(&self.handle.0, element, set::remove)
    }

    /// As [`Set::contains`].
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn contains(&self, element: &T) -> Result<bool, ContentError> {
        let element = stored_at(element, &self.handle.0.place)?;
        Ok(self.handle.contains(element)?)
    }
}

impl<T: DeserializeOwned> Typed<Set, T> {
    /// As [`Set::elements`].
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn elements(&self) -> Result<Vec<T>, ContentError> {
        let (elements, at) = self.handle.0.read(|state, space, at| {
            Ok((set_elements_at(state, space, at, None, usize::MAX)?, at.clone()))
        })?;
        elements.iter().map(|element| read(element, &at)).collect()
    }
}

impl<T: Serialize> Typed<SetReader<'_>, T> {
    /// As [`SetReader::contains`].
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn contains(&self, element: &T) -> Result<bool, ContentError> {
        let element = stored_at(element, &self.handle.0.place)?;
        Ok(self.handle.contains(element)?)
    }
}

impl<T: Serialize + DeserializeOwned> Typed<SetReader<'_>, T> {
    /// As [`SetReader::elements`].
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn elements(&self, after: Option<&T>, limit: usize) -> Result<Vec<T>, ContentError> {
        let after = after.map(|after| stored_at(after, &self.handle.0.place)).transpose()?;
        let (elements, at) = self.handle.0.read(|state, space, at| {
            Ok((set_elements_at(state, space, at, after.as_ref(), limit)?, at.clone()))
        })?;
        elements.iter().map(|element| read(element, &at)).collect()
    }
}

impl<T: Serialize> Typed<TxSet<'_, '_>, T> {
    /// As [`TxSet::insert`].
    ///
    /// # Errors
    /// As [`TxSet::insert`], and when the data is no value.
    pub fn insert(&mut self, element: &T) -> Result<(), TxError> {
        self.handle.0.write(|tx, at| set::insert(tx, at, stored(element, at)?))
    }

    /// As [`TxSet::remove`].
    ///
    /// # Errors
    /// As [`TxSet::insert`], and when the data is no value.
    pub fn remove(&mut self, element: &T) -> Result<(), TxError> {
        self.handle.0.write(|tx, at| set::remove(tx, at, stored(element, at)?))
    }

    /// As [`TxSet::contains`].
    ///
    /// # Errors
    /// As [`TxSet::contains`], and when the data is no value.
    pub fn contains(&self, element: &T) -> Result<bool, TxError> {
        let element = stored_at(element, &self.handle.0.place)?;
        self.handle.0.read(|state, space, at| set_contains_at(state, space, at, &element))
    }
}

impl<T: Serialize + DeserializeOwned> Typed<TxSet<'_, '_>, T> {
    /// As [`TxSet::elements`].
    ///
    /// # Errors
    /// [`TxError`], with a [`ContentError`] as the reason when what is there is other data.
    pub fn elements(&self, after: Option<&T>, limit: usize) -> Result<Vec<T>, TxError> {
        let after = after.map(|after| stored_at(after, &self.handle.0.place)).transpose()?;
        let (elements, at) = self.handle.0.read(|state, space, at| {
            Ok((set_elements_at(state, space, at, after.as_ref(), limit)?, at.clone()))
        })?;
        Ok(elements.iter().map(|element| read(element, &at)).collect::<Result<_, ContentError>>()?)
    }
}
