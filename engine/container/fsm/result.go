package fsm

func (p *stepper) result(ev Event) {
	switch ev := ev.(type) {
	case Started:
		p.started(ev)
	case StartFailed:
		p.startFailed(ev)
	case HasExited:
		p.hasExited(ev)
	case TornDown:
		if ev.Run == p.Run && p.Phase == Exiting {
			p.finished()
		}
	case Signaled:
		p.answer(ev.T, ev.Err)
	case Froze:
		p.froze(ev)
	case Thawed:
		p.thawed(ev)
	case Fired:
		p.fired(ev)
	case Deleted:
		p.deleted(ev.Err)
	case ShimBack:
		p.ShimGone = false
		if !ev.Held && p.Phase.Up() {
			p.hasExited(HasExited{Run: ev.Run, Exit: Exit{Code: 255, Unknown: true, At: ev.At}})
		}
	}
}

func (p *stepper) started(ev Started) {
	if ev.Run != p.Run || p.Phase != Starting {
		return
	}
	p.Phase, p.Ran = Running, true
	p.Last = Exit{}
	p.do(Tell{What: "start"})
	if p.tellAgain {
		p.do(Tell{What: "restart"})
	}
	p.tellAgain = false
	ts := p.starters
	p.starters = nil
	p.answerAll(ts, nil)
	if p.earlyExit != nil {
		early := *p.earlyExit
		p.earlyExit = nil
		p.hasExited(early)
		return
	}
	p.replay()
}

func (p *stepper) startFailed(ev StartFailed) {
	if ev.Run != p.Run || p.Phase != Starting {
		return
	}
	p.Phase = Created
	if p.Ran {
		p.Phase = Exited
	}
	if p.earlyExit != nil {
		p.do(Forget{Run: ev.Run})
	}
	p.earlyExit = nil
	p.tellAgain = false
	p.Last = Exit{Code: ev.Code, At: p.Last.At}
	if ev.Err != nil {
		p.Error = ev.Err.Error()
	}
	ts := p.starters
	p.starters = nil
	p.answerAll(ts, ev.Err)
	p.wake(func(c Condition) bool { return c == NotRunning }, ev.Err)
	if p.AutoRemove {
		p.delete()
	}
	p.replay()
}

func (p *stepper) hasExited(ev HasExited) {
	if ev.Run != p.Run {
		return
	}
	switch p.Phase {
	case Starting:
		p.earlyExit = &ev
	case Running, Paused, Stopping:
		p.Phase = Exiting
		p.Last = ev.Exit
		again := !p.remove && (len(p.restarters) > 0 || p.policySays())
		p.do(Tell{What: "die", Restarting: again}, Teardown{Run: p.Run})
	case Created, Exited, Restarting, Dead:
		p.do(Forget{Run: ev.Run})
	}
}

// finished decides what follows a run whose resources are given back.
func (p *stepper) finished() {
	stoppers, restarters := p.stoppers, p.restarters
	p.stoppers, p.restarters = nil, nil
	if p.tellStop {
		p.do(Tell{What: "stop"})
	}
	p.Phase = Exited
	next := p.policySays() && !p.remove && len(restarters) == 0
	switch {
	case p.remove:
		p.answerAll(restarters, ErrRemoving)
		p.answerAll(stoppers, nil)
		p.wakeStopped(nil)
		p.delete()
	case len(restarters) > 0:
		p.answerAll(stoppers, nil)
		p.wakeStopped(nil)
		p.begin(restarters...)
		p.tellAgain = true
	case next:
		p.answerAll(stoppers, nil)
		p.wakeStopped(nil)
		p.backOff()
	default:
		p.answerAll(stoppers, nil)
		p.afterRest()
	}
	p.replay()
}

// policySays reports whether the restart policy wants another run.
func (p *stepper) policySays() bool {
	if p.cancelled {
		return false
	}
	switch p.Policy.Mode {
	case Always:
		return true
	case UnlessStopped:
		return !p.ManualStop
	case OnFailure:
		return p.Last.Code != 0 && (p.Policy.Max == 0 || p.Restarts < p.Policy.Max)
	default:
		return false
	}
}

func (p *stepper) backOff() {
	switch {
	case p.delay == 0 || p.Last.Ran >= healthyRun:
		p.delay = firstDelay
	default:
		p.delay = min(2*p.delay, maxDelay)
	}
	p.Restarts++
	p.Phase = Restarting
	p.do(Timer{Run: p.Run, Kind: Backoff, After: p.delay})
}

func (p *stepper) froze(ev Froze) {
	if ev.Run != p.Run {
		p.answer(ev.T, ErrNotRunning)
		return
	}
	p.freezing = false
	switch {
	case ev.Err != nil:
		p.answer(ev.T, ev.Err)
	case p.Phase == Running:
		p.Phase = Paused
		p.do(Tell{What: "pause"})
		p.answer(ev.T, nil)
	case p.Phase == Stopping:
		// The signal came while it froze: without thawing it could not end.
		p.freezing = true
		p.do(Thaw{Run: p.Run})
		p.answer(ev.T, ErrNotRunning)
	default:
		p.answer(ev.T, ErrNotRunning)
	}
	p.settle()
}

func (p *stepper) thawed(ev Thawed) {
	if ev.Run != p.Run {
		p.answer(ev.T, ErrNotRunning)
		return
	}
	p.freezing = false
	switch {
	case ev.Err != nil:
		p.answer(ev.T, ev.Err)
	case p.Phase == Paused:
		p.Phase = Running
		p.do(Tell{What: "unpause"})
		p.answer(ev.T, nil)
	case p.Phase == Stopping || ev.T == 0:
		p.answer(ev.T, nil)
	default:
		p.answer(ev.T, ErrNotRunning)
	}
	p.settle()
}

// settle replays what waited for a freeze or thaw; while starting or exiting it waits on.
func (p *stepper) settle() {
	if p.Phase != Starting && p.Phase != Exiting {
		p.replay()
	}
}

func (p *stepper) fired(ev Fired) {
	if ev.Run != p.Run {
		return
	}
	switch {
	case ev.Kind == Backoff && p.Phase == Restarting:
		p.begin()
		p.ByPolicy = true
	case ev.Kind == StopTimer && p.Phase == Stopping:
		p.do(Tell{What: "kill", Signal: sigKill}, Signal{Run: p.Run, Signal: sigKill},
			Timer{Run: p.Run, Kind: KillTimer, After: killPatience})
	case ev.Kind == KillTimer && p.Phase == Stopping:
		p.remove = false
		stoppers, restarters, removers := p.stoppers, p.restarters, p.removers
		p.stoppers, p.restarters, p.removers = nil, nil, nil
		p.answerAll(stoppers, ErrUnkillable)
		p.answerAll(restarters, ErrUnkillable)
		p.answerAll(removers, ErrUnkillable)
	}
}

func (p *stepper) deleted(err error) {
	if p.Phase != Removing {
		return
	}
	removers := p.removers
	p.removers, p.remove = nil, false
	if err != nil {
		p.Phase, p.Error = Dead, err.Error()
		p.answerAll(removers, err)
		p.wakeStopped(nil)
		// A waiter for removal is told as well: nobody may ever try again.
		p.wake(func(Condition) bool { return true }, err)
		return
	}
	p.Phase = Removed
	p.do(Tell{What: "destroy"})
	p.answerAll(removers, nil)
	p.wake(func(Condition) bool { return true }, nil)
}
