//! A map from peers to what is known of them, for the few dozen that a node has: sorted vectors, which are searched and
//! walked several times faster than a tree. Order is that of the ids, whatever the order of insertion.

use alloc::vec::Vec;

use crate::id::PeerId;

/// A map whose keys are peers.
#[derive(Debug, Clone)]
pub(crate) struct PeerMap<T> {
    /// The first bytes of each id, ascending: nearly every search ends here, and they share a few cache lines.
    heads: Vec<u64>,
    ids: Vec<PeerId>,
    values: Vec<T>,
}

impl<T> Default for PeerMap<T> {
    fn default() -> Self {
        Self { heads: Vec::new(), ids: Vec::new(), values: Vec::new() }
    }
}

impl<T> PeerMap<T> {
    /// Where `peer` stands, or would.
    fn find(&self, peer: &PeerId) -> Result<usize, usize> {
        let head = head(peer);
        let mut at = self.heads.partition_point(|&other| other < head);
        while let Some(id) = self.ids.get(at).filter(|_| self.heads[at] == head) {
            match id.cmp(peer) {
                core::cmp::Ordering::Less => at += 1,
                core::cmp::Ordering::Equal => return Ok(at),
                core::cmp::Ordering::Greater => break,
            }
        }
        Err(at)
    }

    pub(crate) fn get(&self, peer: &PeerId) -> Option<&T> {
        self.find(peer).ok().map(|at| &self.values[at])
    }

    pub(crate) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut T> {
        self.find(peer).ok().map(|at| &mut self.values[at])
    }

    pub(crate) fn contains_key(&self, peer: &PeerId) -> bool {
        self.find(peer).is_ok()
    }

    /// The value of `peer`, made if there is none.
    pub(crate) fn get_or_insert_with(&mut self, peer: PeerId, make: impl FnOnce() -> T) -> &mut T {
        let at = match self.find(&peer) {
            Ok(at) => at,
            Err(at) => {
                self.put(at, peer, make());
                at
            }
        };
        &mut self.values[at]
    }

    fn put(&mut self, at: usize, peer: PeerId, value: T) {
        self.heads.insert(at, head(&peer));
        self.ids.insert(at, peer);
        self.values.insert(at, value);
    }

    /// Replaces what there was, and gives it back.
    pub(crate) fn insert(&mut self, peer: PeerId, value: T) -> Option<T> {
        match self.find(&peer) {
            Ok(at) => Some(core::mem::replace(&mut self.values[at], value)),
            Err(at) => {
                self.put(at, peer, value);
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, peer: &PeerId) -> Option<T> {
        let at = self.find(peer).ok()?;
        self.heads.remove(at);
        self.ids.remove(at);
        Some(self.values.remove(at))
    }

    /// Keeps what `keep` says.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for at in (0..self.values.len()).rev() {
            if !keep(&self.values[at]) {
                self.heads.remove(at);
                self.ids.remove(at);
                self.values.remove(at);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn values(&self) -> core::slice::Iter<'_, T> {
        self.values.iter()
    }

    pub(crate) fn values_mut(&mut self) -> core::slice::IterMut<'_, T> {
        self.values.iter_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PeerId, &T)> {
        self.ids.iter().zip(&self.values)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&PeerId, &mut T)> {
        self.ids.iter().zip(&mut self.values)
    }
}

fn head(peer: &PeerId) -> u64 {
    let mut head = [0; 8];
    head.copy_from_slice(&peer.0[..8]);
    u64::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    #[test]
    fn it_does_what_a_tree_does_with_ids_that_begin_alike_too() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut map, mut tree) = (PeerMap::default(), BTreeMap::new());
        for step in 0..20_000u32 {
            let mut id = [0; 32];
            (id[0], id[31]) = (rng.u8(..4), rng.u8(..8));
            let id = PeerId(id);
            match rng.u8(..5) {
                0 => assert_eq!(map.insert(id, step), tree.insert(id, step)),
                1 => assert_eq!(map.remove(&id), tree.remove(&id)),
                2 if step.is_multiple_of(50) => {
                    map.retain(|value| value % 3 != 0);
                    tree.retain(|_, value| *value % 3 != 0);
                }
                2 => assert_eq!(map.get_or_insert_with(id, || step), tree.entry(id).or_insert(step)),
                _ => {
                    assert_eq!(map.get(&id), tree.get(&id));
                    assert_eq!(map.contains_key(&id), tree.contains_key(&id));
                }
            }
            assert!(map.iter().eq(tree.iter()) && map.values().eq(tree.values()) && map.len() == tree.len());
        }
    }
}
