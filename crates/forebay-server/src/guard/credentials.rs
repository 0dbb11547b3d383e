//! Who may use the unix socket, by the user and primary group that the kernel reports of the other
//! end. Inside a user namespace everybody outside of it is one and the same nobody, so the daemon
//! must not run in one of its own.

use forebay::config::AuthConfig;
use nix::unistd::{Group, User};

use crate::error::ServeError;

/// Users and groups that may connect; both empty for everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Credentials {
    /// Looks the names up.
    ///
    /// # Errors
    /// A name that this system does not know.
    pub(crate) fn load(auth: &AuthConfig) -> Result<Self, ServeError> {
        let users = auth.users_allowed.iter().map(|name| user(name));
        let groups = auth.groups_allowed.iter().map(|name| group(name));
        Ok(Self {
            users: users.collect::<Result<_, _>>()?,
            groups: groups.collect::<Result<_, _>>()?,
        })
    }

    /// Whether this user with this primary group may connect.
    pub(crate) fn admit(&self, user: u32, group: u32) -> bool {
        (self.users.is_empty() && self.groups.is_empty())
            || self.users.contains(&user)
            || self.groups.contains(&group)
    }
}

fn user(name: &str) -> Result<u32, ServeError> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let found = User::from_name(name).ok().flatten();
    let unknown = ServeError::Name { kind: "user", name: name.to_owned() };
    found.map(|user| user.uid.as_raw()).ok_or(unknown)
}

/// The number of a group.
///
/// # Errors
/// This system does not know it.
pub(crate) fn group(name: &str) -> Result<u32, ServeError> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let found = Group::from_name(name).ok().flatten();
    let unknown = ServeError::Name { kind: "group", name: name.to_owned() };
    found.map(|group| group.gid.as_raw()).ok_or(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(users: &[&str], groups: &[&str]) -> Result<Credentials, ServeError> {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Credentials::load(&AuthConfig {
            users_allowed: owned(users),
            groups_allowed: owned(groups),
            ..AuthConfig::default()
        })
    }

    #[test]
    fn who_is_in_either_list_may_and_without_lists_everybody() {
        assert!(load(&[], &[]).expect("nothing to look up").admit(1, 1));
        let some = load(&["root", "1000"], &["7"]).expect("known");
        assert!(some.admit(0, 99) && some.admit(1000, 99) && some.admit(5, 7));
        assert!(!some.admit(5, 99));
    }

    #[test]
    fn a_name_that_nobody_has_is_an_error() {
        let message = load(&["no-such-user-here"], &[]).expect_err("unknown").to_string();
        assert!(message.contains("no-such-user-here"), "{message}");
    }
}
