internal import CLinux
internal import Glibc

/// Who a process is: `--user`.
struct UserIdentity: Equatable, Sendable, CustomStringConvertible {
    let uid: UInt32
    let gid: UInt32
    /// As the operator wrote it.
    let text: String

    /// `nobody (65534:65534)`
    var description: String { text == "\(uid):\(gid)" ? text : "\(text) (\(uid):\(gid))" }

    /// Whether this process is that user already: by its real, effective and saved ids, and in no other group.
    var isThisProcess: Bool {
        var users: (uid_t, uid_t, uid_t) = (0, 0, 0)
        var groups: (gid_t, gid_t, gid_t) = (0, 0, 0)
        guard unsafe getresuid(&users.0, &users.1, &users.2) == 0, unsafe getresgid(&groups.0, &groups.1, &groups.2) == 0 else {
            return false
        }
        var further = [gid_t](repeating: 0, count: Int(max(getgroups(0, nil), 0)))
        let count = unsafe getgroups(Int32(further.count), &further)
        return users == (uid, uid, uid) && groups == (gid, gid, gid) && count >= 0
            && further.prefix(Int(count)).allSatisfy { $0 == gid }
    }
}

/// /etc/passwd and /etc/group, read without getpwnam(3), which loads NSS modules and so works in no static program. Users that only
/// such a module knows have to be given as numbers.
struct UserDatabase {
    /// Lines of passwd(5) and group(5).
    let passwd: [String]
    let group: [String]

    static func ofThisHost() -> UserDatabase {
        UserDatabase(passwd: TextFile.lines(of: "/etc/passwd"), group: TextFile.lines(of: "/etc/group"))
    }

    /// `NAME` or `UID`, and `:` with a group's name or number. All digits are a number.
    func identity(_ text: String) throws(BadValue) -> UserIdentity {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count <= 2, parts.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy { $0 > 32 && $0 != 127 } }) else {
            throw BadValue("not of the form USER or USER:GROUP, each a name or a number (like nobody, or 65534:65534)")
        }
        let user = try user(parts[0])
        guard user.uid != 0 else { throw BadValue("uid 0 is root, which --user is there to leave: name another user") }
        let gid: UInt32
        if parts.count == 2 {
            gid = try self.group(parts[1])
        } else if let primary = user.gid {
            gid = primary
        } else {
            throw BadValue(
                "no user in /etc/passwd has the uid \(user.uid), so its group must be given, too (like \(text):\(text))")
        }
        return UserIdentity(uid: user.uid, gid: gid, text: text)
    }

    private func user(_ word: Substring) throws(BadValue) -> (uid: UInt32, gid: UInt32?) {
        let entries = Self.entries(passwd, fields: 4).compactMap { fields in
            Self.id(fields[2]).flatMap { uid in Self.id(fields[3]).map { (name: fields[0], uid: uid, gid: $0) } }
        }
        if Self.isNumber(word) {
            guard let uid = Self.id(word) else { throw BadValue("\(word) is no uid: those go from 1 to 4294967294") }
            return (uid, entries.first { $0.uid == uid }?.gid)
        }
        guard let entry = entries.first(where: { $0.name == word }) else {
            throw BadValue(
                "no user '\(word)' in /etc/passwd (one that only LDAP or NIS knows is given by numbers, UID:GID: see `id \(word)`)"
            )
        }
        return (entry.uid, entry.gid)
    }

    private func group(_ word: Substring) throws(BadValue) -> UInt32 {
        if Self.isNumber(word) {
            guard let gid = Self.id(word) else { throw BadValue("\(word) is no gid: those go from 0 to 4294967294") }
            return gid
        }
        let entries = Self.entries(group, fields: 3).compactMap { fields in Self.id(fields[2]).map { (name: fields[0], gid: $0) }
        }
        guard let entry = entries.first(where: { $0.name == word }) else {
            throw BadValue("no group '\(word)' in /etc/group (one that only LDAP or NIS knows is given by its number)")
        }
        return entry.gid
    }

    /// The first fields of the lines that have as many. Comments and the `+` and `-` lines of NIS are no entries.
    private static func entries(_ lines: [String], fields: Int) -> [[Substring]] {
        lines.compactMap { line in
            if let first = line.first, "+-#".contains(first) { return nil }
            let parts = line.split(separator: ":", maxSplits: fields, omittingEmptySubsequences: false)
            return parts.count >= fields && !parts[0].isEmpty ? parts : nil
        }
    }

    private static func isNumber(_ word: Substring) -> Bool { word.utf8.allSatisfy { (48...57).contains($0) } }

    /// nil: no id. The greatest number is none either: setresuid(2) takes it for "leave as it is".
    private static func id(_ word: Substring) -> UInt32? {
        guard !word.isEmpty, isNumber(word), let id = UInt32(word), id != .max else { return nil }
        return id
    }
}
