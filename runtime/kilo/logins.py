"""As whom a process logs in to the database: a login for each role and generation of passwords.

What a role may do is granted to the role. Of the first generation it logs in itself; a login of a later one
is its member, and is the role from its first statement on. So two can have passwords at a time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Generation:
    """Which logins are accepted.

    Attributes:
        number: of the generation that processes have.
        former_accepted: whether that before it is accepted as well, while processes take up this one.
    """

    number: int = 1
    former_accepted: bool = False

    @property
    def accepted(self) -> tuple[int, ...]:
        """The numbers of those that get in, the former one first."""
        return (self.number - 1, self.number) if self.former_accepted else (self.number,)


def login_of(role: str, generation: int) -> str:
    """The database user by which a process of ``role`` logs in."""
    return role if generation == 1 else f"{role}_{generation}"


def password_variable(login: str) -> str:
    """The environment variable in which the migration finds the password of ``login``."""
    return f"{login.upper()}_PASSWORD"
