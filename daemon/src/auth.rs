//! Who asks, and what they may do.

use comity::SpaceId;

/// What a request may do; each scope includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Read objects, changes, conflicts, the journal and the status.
    Read,
    /// Write objects and resolve conflicts.
    Write,
    /// Found and join spaces, invite, set policies, back up.
    Admin,
}

impl Scope {
    /// The scope with this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "read" => Some(Self::Read),
            "write" => Some(Self::Write),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// A bearer token that is accepted, as the configuration holds it: the token itself is nowhere.
#[derive(Clone, Debug)]
pub(crate) struct TokenEntry {
    pub(crate) name: String,
    pub(crate) hash: blake3::Hash,
    pub(crate) scope: Scope,
    /// Where it counts; everywhere when there is none.
    pub(crate) spaces: Vec<SpaceId>,
}

/// What a request was found to be allowed.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// The token's name, for the log.
    pub(crate) name: String,
    pub(crate) scope: Scope,
    spaces: Vec<SpaceId>,
}

impl Access {
    /// What whoever is on this machine may do without a token.
    pub(crate) fn local(scope: Scope) -> Self {
        Self { name: "local".to_owned(), scope, spaces: Vec::new() }
    }

    /// Whether it counts in every space, so that spaces can be founded and listed.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.spaces.is_empty()
    }

    /// Whether it counts in this space.
    pub(crate) fn covers(&self, space: &SpaceId) -> bool {
        self.is_everywhere() || self.spaces.contains(space)
    }
}

/// How a token is stored. Tokens are 256 random bits, so one pass of a fast hash is enough.
pub(crate) fn hash(token: &str) -> blake3::Hash {
    blake3::hash(token.as_bytes())
}

/// What a presented token allows. Compares with every entry, each in constant time, so that how long it takes says
/// nothing about how near a guess was, nor which entry it was.
pub(crate) fn authenticate(tokens: &[TokenEntry], presented: &str) -> Option<Access> {
    let presented = hash(presented);
    let mut found = None;
    for entry in tokens {
        // The comparison of BLAKE3 hashes takes constant time.
        if entry.hash == presented {
            found = Some(entry);
        }
    }
    found.map(|entry| Access { name: entry.name.clone(), scope: entry.scope, spaces: entry.spaces.clone() })
}

/// A token that nobody can guess: `comity_` and 256 bits in base 32.
pub(crate) fn fresh_token() -> String {
    format!("comity_{}", data_encoding::BASE32_NOPAD.encode(&fresh_bits::<32>()).to_ascii_lowercase())
}

/// Bits from the operating system.
pub(crate) fn fresh_bits<const N: usize>() -> [u8; N] {
    let mut bits = [0; N];
    getrandom::fill(&mut bits).expect("the operating system has random numbers");
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, token: &str, scope: Scope, spaces: Vec<SpaceId>) -> TokenEntry {
        TokenEntry { name: name.to_owned(), hash: hash(token), scope, spaces }
    }

    #[test]
    fn a_token_is_found_by_its_hash_and_by_nothing_else() {
        let (one, other) = (fresh_token(), fresh_token());
        assert_ne!(one, other);
        let space = SpaceId([7; 16]);
        let tokens = [entry("a", &one, Scope::Read, vec![]), entry("b", &other, Scope::Write, vec![space])];
        let access = authenticate(&tokens, &other).unwrap();
        assert_eq!((access.name.as_str(), access.scope), ("b", Scope::Write));
        assert!(access.covers(&space) && !access.covers(&SpaceId([8; 16])) && !access.is_everywhere());
        assert!(authenticate(&tokens, &one).unwrap().is_everywhere());
        for guess in ["", "comity_", &one[..one.len() - 1], &tokens[0].hash.to_hex()] {
            assert!(authenticate(&tokens, guess).is_none(), "{guess}");
        }
    }
}
