//! Planted bugs: what a wrong Comity would do, to show that the simulator's oracles see it.
//!
//! The code that would do wrong is compiled only with the feature `canaries`, and does so only in a thread
//! that chose the bug with [`plant`].

/// Whether the named bug is planted in this thread: `canary!(AckBeforeSync)`. Always false, and free, without
/// the feature `canaries`.
#[macro_export]
macro_rules! canary {
    ($name:ident) => {
        $crate::canary::is_planted($crate::canary::Canary::$name)
    };
}

macro_rules! canaries {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Canary {
            $($(#[$doc])* $name,)*
        }

        impl Canary {
            /// Every bug that can be planted.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

canaries! {
    /// A write is acknowledged when it is committed, not when it is synced.
    AckBeforeSync,
}

#[cfg(feature = "canaries")]
mod planted {
    use std::cell::Cell;

    thread_local! {
        pub(super) static PLANTED: Cell<Option<super::Canary>> = const { Cell::new(None) };
    }

    /// Plants a bug in this thread, or none.
    pub fn plant(canary: Option<super::Canary>) {
        PLANTED.set(canary);
    }
}

#[cfg(feature = "canaries")]
pub use planted::plant;

/// Whether a bug is planted in this thread.
#[cfg(feature = "canaries")]
pub fn is_planted(canary: Canary) -> bool {
    planted::PLANTED.get() == Some(canary)
}

/// Whether a bug is planted in this thread: never, in this build.
#[cfg(not(feature = "canaries"))]
pub const fn is_planted(_: Canary) -> bool {
    false
}
