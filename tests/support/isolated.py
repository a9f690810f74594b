"""Tables and rows for the tests of what isolates tests from each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ForeignKey, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

if TYPE_CHECKING:
    from sessionfactory import SessionFactory


class Base(DeclarativeBase):
    pass


class Team(Base):
    """A team has a captain, who is in a team: the foreign keys go round in a circle."""

    __tablename__ = "team"

    id: Mapped[int] = mapped_column(primary_key=True)
    captain_id: Mapped[int | None] = mapped_column(ForeignKey("player.id"))


class Player(Base):
    __tablename__ = "player"

    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("team.id"))


def one_team(session: Session) -> None:
    """Seed one team with its captain."""
    team = Team()
    session.add(team)
    session.flush()
    captain = Player(team_id=team.id)
    session.add(captain)
    session.flush()
    team.captain_id = captain.id


def add_player(sessions: SessionFactory) -> None:
    """Add one player, and commit."""
    with sessions.begin() as session:
        session.add(Player())


def players(sessions: SessionFactory) -> int:
    """Count the players."""
    with sessions() as session:
        return session.scalar(select(func.count()).select_from(Player)) or 0
