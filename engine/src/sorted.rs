//! Maps that are small and many: one piece of memory each, no larger than what it holds needs. A tree reserves room for
//! eleven.

use std::ops::Index;
use std::slice;

/// A map in the order of its keys. To look something up costs O(log n), to insert O(n); in ascending order O(1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sorted<K, V>(Vec<(K, V)>);

type Pairs<'a, K, V> = std::iter::Map<slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;
type PairsMut<'a, K, V> =
    std::iter::Map<slice::IterMut<'a, (K, V)>, fn(&'a mut (K, V)) -> (&'a K, &'a mut V)>;

impl<K, V> Sorted<K, V> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> Pairs<'_, K, V> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

impl<K: Ord, V> Sorted<K, V> {
    fn place(&self, key: &K) -> Result<usize, usize> {
        // What is read back comes in order.
        match self.0.last() {
            Some((last, _)) if last >= key => self.0.binary_search_by(|(here, _)| here.cmp(key)),
            _ => Err(self.0.len()),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|place| &self.0[place].1)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.place(key).ok().map(|place| &mut self.0[place].1)
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    /// Puts a value in the place of the one under the same key, if there is one.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self.place(&key) {
            Ok(place) => self.0[place].1 = value,
            Err(place) => self.insert_at(place, key, value),
        }
    }

    /// What is under a key, which is made when there is nothing.
    pub(crate) fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let place = match self.place(&key) {
            Ok(place) => place,
            Err(place) => {
                self.insert_at(place, key, make());
                place
            }
        };
        &mut self.0[place].1
    }

    fn insert_at(&mut self, place: usize, key: K, value: V) {
        if self.0.len() == self.0.capacity() {
            self.0.reserve_exact(1 + self.0.len() / 2);
        }
        self.0.insert(place, (key, value));
    }
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Sorted<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut sorted = Self::new();
        pairs.into_iter().for_each(|(key, value)| sorted.insert(key, value));
        sorted
    }
}

impl<K: Ord, V> Index<&K> for Sorted<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("the map has the key")
    }
}

impl<'a, K, V> IntoIterator for &'a Sorted<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Pairs<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, K, V> IntoIterator for &'a mut Sorted<K, V> {
    type Item = (&'a K, &'a mut V);
    type IntoIter = PairsMut<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_in_the_order_of_its_keys(pairs in prop::collection::vec((0_u8..24, any::<u8>()), 0..64)) {
            let (mut sorted, mut tree) = (Sorted::new(), BTreeMap::new());
            for (key, value) in &pairs {
                prop_assert_eq!(sorted.contains_key(key), tree.contains_key(key));
                let (here, there) = (*sorted.get_or_insert_with(*key, || 0), *tree.entry(*key).or_insert(0));
                prop_assert_eq!(here, there);
                sorted.insert(*key, *value);
                tree.insert(*key, *value);
                prop_assert_eq!(sorted[key], *value);
            }
            prop_assert!(sorted.iter().eq(tree.iter()));
            prop_assert!(sorted.keys().eq(tree.keys()));
            for (_, value) in &mut sorted {
                *value = value.wrapping_add(1);
            }
            tree.values_mut().for_each(|value| *value = value.wrapping_add(1));
            prop_assert!(sorted.values().eq(tree.values()));
            prop_assert_eq!(sorted.len(), tree.len());
            prop_assert_eq!((0..24).map(|key| sorted.get(&key)).collect::<Vec<_>>(), (0..24).map(|key| tree.get(&key)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_that_holds_one_thing_reserves_room_for_no_other() {
        let mut sorted = Sorted::new();
        sorted.insert(1, 2);
        assert_eq!(sorted.0.capacity(), 1);
    }
}
