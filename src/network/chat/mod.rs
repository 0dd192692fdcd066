//! The totally ordered log in a program of one's own.

mod group;

pub(crate) use group::{ChatMember, MemberOptions, knows_its_group};
