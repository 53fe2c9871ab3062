package faultstore_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/faultstore"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/storage/storagetest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	storagetest.Run(t, func(t *testing.T) storage.Store {
		s := memstore.New()
		t.Cleanup(func() { _ = s.Close() })
		return closing{faultstore.New(s), s}
	})
}

// closing closes what a Store wraps.
type closing struct {
	*faultstore.Store
	inner *memstore.Store
}

func (c closing) Close() error { return c.inner.Close() }

// Every method of every transaction is counted, and can fail.
func TestEveryMethodCanFail(t *testing.T) {
	t.Parallel()
	for _, method := range methods[storage.Tx]() {
		t.Run("tx "+method, func(t *testing.T) {
			is := is.New(t)
			s := faultstore.New(memstore.New())
			s.Arm(faultstore.Plan{At: 2, Kind: faultstore.Unavailable})
			err := s.Update(t.Context(), "acme", func(ctx context.Context, tx storage.Tx) error {
				is.True(errors.Is(callZero(ctx, tx, method), storage.ErrUnavailable))
				_, err := tx.Head(ctx)
				is.True(errors.Is(err, storage.ErrPoisoned))
				return nil
			})
			is.True(errors.Is(err, storage.ErrUnavailable))
			is.Equal(s.Calls(), []string{"Update", method})
		})
	}
	for _, method := range methods[storage.ReadTx]() {
		t.Run("read "+method, func(t *testing.T) {
			is := is.New(t)
			s := faultstore.New(memstore.New())
			s.Arm(faultstore.Plan{At: 2, Kind: faultstore.Busy})
			err := s.View(t.Context(), "acme", func(ctx context.Context, tx storage.ReadTx) error {
				is.True(errors.Is(callZero(ctx, tx, method), storage.ErrBusy))
				return nil
			})
			is.True(errors.Is(err, storage.ErrBusy))
		})
	}
	for _, method := range methods[storage.Store]() {
		t.Run("store "+method, func(t *testing.T) {
			is := is.New(t)
			s := faultstore.New(memstore.New())
			s.Arm(faultstore.Plan{At: 1, Kind: faultstore.Unavailable, Forever: true})
			for range 2 {
				is.True(errors.Is(callZero(t.Context(), storage.Store(s), method), storage.ErrUnavailable))
			}
			s.Disarm()
			is.True(!errors.Is(callZero(t.Context(), storage.Store(s), "Organizations"), storage.ErrUnavailable))
		})
	}
}

func methods[T any]() (names []string) {
	t := reflect.TypeFor[T]()
	for i := range t.NumMethod() {
		names = append(names, t.Method(i).Name)
	}
	return names
}

// callZero calls a method with zero arguments and answers its error.
func callZero[T any](ctx context.Context, on T, method string) error {
	m := reflect.ValueOf(&on).Elem().MethodByName(method)
	args := []reflect.Value{reflect.ValueOf(ctx)}
	for i := 1; i < m.Type().NumIn(); i++ {
		args = append(args, reflect.Zero(m.Type().In(i)))
	}
	out := m.Call(args)
	err, _ := out[len(out)-1].Interface().(error)
	return err
}

func put(ctx context.Context, s storage.Store, id string) (runs int, err error) {
	err = s.Update(ctx, "acme", func(ctx context.Context, tx storage.Tx) error {
		runs++
		_, err := tx.PutRecord(ctx, storage.Record{Organization: "acme", Kind: "note", ID: id, Revision: 1})
		return err
	})
	return runs, err
}

func there(t *testing.T, s storage.Store, id string) (ok bool) {
	t.Helper()
	err := s.View(t.Context(), "acme", func(ctx context.Context, tx storage.ReadTx) (err error) {
		_, ok, err = tx.Record(ctx, "note", id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func TestCommits(t *testing.T) {
	t.Parallel()
	tests := []struct {
		kind faultstore.Kind
		err  error
		kept bool
		runs int
	}{
		{faultstore.Unavailable, storage.ErrUnavailable, false, 1},
		{faultstore.Busy, storage.ErrBusy, false, 1},
		{faultstore.Poisoned, storage.ErrUnavailable, false, 1},
		{faultstore.UnknownApplied, storage.ErrUnknown, true, 1},
		{faultstore.UnknownLost, storage.ErrUnknown, false, 1},
		{faultstore.Found, nil, true, 1},
		{faultstore.Rerun, nil, true, 2},
	}
	for _, test := range tests {
		t.Run(test.kind.String(), func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			s := faultstore.New(memstore.New())
			s.Arm(faultstore.Plan{At: 3, Kind: test.kind, Forever: true})
			runs, err := put(t.Context(), s, "a")
			is.True(errors.Is(err, test.err))
			is.Equal(runs, test.runs)
			is.Equal(s.Calls()[:3], []string{"Update", "PutRecord", faultstore.Commit})
			s.Disarm()
			is.Equal(there(t, s, "a"), test.kept)
		})
	}
}

func TestPoisoned(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := faultstore.New(memstore.New())
	s.Arm(faultstore.Plan{At: 2, Kind: faultstore.Poisoned})
	_, err := put(t.Context(), s, "a")
	is.True(errors.Is(err, storage.ErrPoisoned))
	is.True(!there(t, s, "a"))
}

func TestHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s := faultstore.New(memstore.New())
		for at := 1; at <= 3; at++ {
			s.Arm(faultstore.Plan{At: at, Kind: faultstore.Hang})
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err := put(ctx, s, "a")
			cancel()
			is.True(errors.Is(err, context.DeadlineExceeded))
			is.Equal(time.Since(began), time.Minute)
			is.True(!there(t, s, "a"))
		}
	})
}

func TestHeld(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := faultstore.New(memstore.New())
	is.True(!faultstore.Holding(t.Context()))
	err := s.Update(t.Context(), "acme", func(ctx context.Context, _ storage.Tx) error {
		is.Equal(s.Held(), 1)
		is.True(faultstore.Holding(ctx))
		return nil
	})
	is.NoErr(err)
	is.Equal(s.Held(), 0)
}
