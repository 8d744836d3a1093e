package rekey

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Run does r. Before the first file, Run calls each with the target KEK; after every file, Run
// calls each again. An error means that Run did not begin or was cut off: ErrRequest, a
// keys.ErrNoKey, keys.ErrSeal, or an error of ctx or each. Files with an error are listed in the
// Summary, and cause no error of Run. The Summary is valid also beside an error.
func Run(ctx context.Context, c Config, r Request, each func(Event) error) (Summary, error) {
	if err := c.Store.Verify(ctx, c.Keys); err != nil {
		return Summary{}, err
	}
	if err := r.cleanPaths(); err != nil {
		return Summary{}, err
	}
	s := c.Store.Settings()
	place, err := r.keyed(s)
	if err != nil {
		return Summary{}, err
	}
	if err := r.check(s); err != nil {
		return Summary{}, err
	}
	run := &run{config: &c, paths: r.Paths, each: each}
	run.goal.drop = r.Drop
	if r.onlyDrops() {
		err := run.passes(ctx)
		return run.sum, err
	}
	ref, becomes, err := run.choose(ctx, &r, s, place)
	if err != nil {
		return Summary{}, err
	}
	run.sum.KeyName = wire.KeyName{Provider: ref.Provider, Identifier: ref.ID}
	err = c.Keys.UseForNew(ctx, ref, func(target *keys.KEK) error {
		run.goal.target = target
		return run.under(ctx, becomes)
	})
	return run.sum, err
}

// choose gives the KEK that is held for the whole run, made where needed, and takes aim. place: the
// request changes the key of this place. becomes: the KEK is to be the datastore's current one.
func (r *run) choose(ctx context.Context, request *Request, s *layout.Settings, place *layout.Place) (ref keys.Ref, becomes bool, err error) {
	if place != nil {
		ref, err := r.changePlaceKey(ctx, request, place)
		return ref, false, err
	}
	ref, r.sum.Created, err = r.config.target(ctx, request, s)
	if err != nil {
		return ref, false, err
	}
	becomes = request.becomesCurrent(s, ref)
	return r.takeAim(request, ref, becomes), becomes, nil
}

// run is one Run under way.
type run struct {
	config *Config
	goal   goal // of files whose aim is the goal's target
	aim    aim
	paths  []string
	each   func(Event) error
	sum    Summary
	done   int64 // files seen in the current pass
	total  *total
}

// whole reports whether the run is over the whole datastore.
func (r *run) whole() bool { return slices.Contains(r.paths, ".") }

// under does a request with the goal's target at hand. becomes: the target is to be the
// datastore's current KEK.
func (r *run) under(ctx context.Context, becomes bool) error {
	if becomes {
		if err := r.config.makeCurrent(ctx, r.goal.target); err != nil {
			return err
		}
		r.sum.Current = true
	}
	// Also after an earlier run that made the KEK current and was cut off.
	if r.config.TakeUp != nil {
		r.config.TakeUp()
	}
	return r.passes(ctx)
}

// passes walks until one pass finds nothing to do: a file made or moved behind one pass is found
// by the next. A change of the current KEK takes at least two passes.
func (r *run) passes(ctx context.Context) error {
	r.total = countFiles(ctx, r.config.Store.Fd(), r.paths)
	defer r.total.end()
	if err := r.tell(""); err != nil {
		return err
	}
	for {
		before := r.sum.Rekeyed
		if err := r.pass(ctx); err != nil {
			return err
		}
		if r.sum.Rekeyed == before && (r.sum.Passes > 1 || !r.sum.Current) {
			r.sum.Complete = r.sum.Failed == 0
			return nil
		}
	}
}

// pass walks once over everything asked for.
func (r *run) pass(ctx context.Context) error {
	r.sum.Passes++
	r.done = 0
	r.sum.Files, r.sum.Clear, r.sum.Rest = 0, 0, wire.Rest{}
	r.aim.renew(r.config.Store.Settings())
	w := files(r.config.Store.Fd(), func(dir int, name, rel string) error {
		return r.visit(ctx, dir, name, rel)
	})
	w.Broken = func(rel string, err error) error { return r.note(ctx, rel, passed, err) }
	for _, rel := range r.paths {
		err := w.From(ctx, rel)
		switch {
		case err == nil:
		case ctx.Err() != nil || errors.Is(err, errEach):
			return err
		case r.sum.Passes > 1 && errors.Is(err, unix.ENOENT): // removed since
		default:
			if err := r.note(ctx, rel, passed, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// errEach marks the receiver's errors.
var errEach = errors.New("progress not taken")

// note counts one name and reports the count to the receiver. An error of note ends the walk; the
// failure of a file does not.
func (r *run) note(ctx context.Context, rel string, done outcome, err error) error {
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx) // no failure of the file
	case err != nil:
		r.sum.Add(rel, err)
	case done == cleartext:
		r.sum.Clear++
	case done == already:
		r.sum.Files++
		if r.sum.Passes == 1 {
			r.sum.Already++
		}
	case done == rekeyed:
		r.sum.Files++
		r.sum.Rekeyed++
	}
	return r.tell(rel)
}

// tell reports the progress of the run to the receiver, with rel as the last file.
func (r *run) tell(rel string) error {
	s := &r.sum
	err := r.each(Event{
		KeyName: s.KeyName, Created: s.Created, Current: s.Current, Place: s.Place,
		Path: rel, Pass: max(s.Passes, 1), Done: r.done, Total: r.total.files(),
		Files: s.Files, Rekeyed: s.Rekeyed, Failed: s.Failed,
	})
	if err != nil {
		return errors.Join(errEach, err)
	}
	return nil
}
