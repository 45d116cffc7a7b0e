"""Schedules: primitives, the default choice, the space of choices, and lowering of scheduled tasks to loop nests."""

from tracedsl.schedule.default import MachineFacts as MachineFacts
from tracedsl.schedule.default import default_schedule as default_schedule
from tracedsl.schedule.nests import lower_task as lower_task
from tracedsl.schedule.primitives import Schedule as Schedule
from tracedsl.schedule.primitives import ScheduleError as ScheduleError
from tracedsl.schedule.space import ScheduleSpace as ScheduleSpace
from tracedsl.schedule.space import schedule_from_point as schedule_from_point
from tracedsl.schedule.space import schedule_space as schedule_space
