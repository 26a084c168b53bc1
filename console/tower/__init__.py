"""The tower: starts, watches and stops every process of Clearance on one machine."""
