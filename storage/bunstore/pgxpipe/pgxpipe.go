// Package pgxpipe sends several statements of a bunstore.Store to Postgres in one
// round trip, where the driver is pgx (github.com/jackc/pgx/v5/stdlib):
//
//	db, err := sql.Open("pgx", url)
//	store, err := bunstore.New(bunstore.Config{DB: bun.NewDB(db, pgdialect.New()), Pipeline: pgxpipe.Send})
//
// It is a package of its own so that bunstore links no driver.
package pgxpipe

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
)

// Send is a bunstore.Pipeline.
func Send(ctx context.Context, conn any, parcels []*bunstore.Parcel) error {
	own, ok := conn.(interface{ Conn() *pgx.Conn })
	if !ok || len(parcels) == 0 {
		if !ok {
			return driver.ErrSkip
		}
		return nil
	}
	var b pgx.Batch
	for _, p := range parcels {
		b.Queue(p.Text, p.Args...)
	}
	results := own.Conn().SendBatch(ctx, &b)
	for _, p := range parcels {
		if err := read(results, p); err != nil {
			return errors.Join(err, results.Close())
		}
	}
	return results.Close()
}

// read reads the answer to one statement.
func read(results pgx.BatchResults, p *bunstore.Parcel) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if p.Each == nil {
			continue
		}
		if err := p.Each(rows); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	p.Tag, p.Count = rows.CommandTag().String(), rows.CommandTag().RowsAffected()
	return nil
}
