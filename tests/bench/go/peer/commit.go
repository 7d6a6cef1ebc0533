package main

import (
	"database/sql"
	"time"
)

const (
	batchMax = 256
	linger   = time.Millisecond
)

// alone commits one call's work by itself.
func alone(database *sql.DB, work unit) error {
	tx, err := database.Begin()
	if err != nil {
		return err
	}
	if err := work(tx); err != nil {
		tx.Rollback()
		return err
	}
	return tx.Commit()
}

type job struct {
	work unit
	done chan error
	err  error
}

// grouped returns a write that shares its commit with the others that wait.
func grouped(database *sql.DB) func(unit) error {
	jobs := make(chan *job, 4096)
	go func() {
		for first := range jobs {
			batch := gather(first, jobs)
			err := commit(database, batch)
			for _, each := range batch {
				if each.err == nil {
					each.err = err
				}
				each.done <- each.err
			}
		}
	}()
	return func(work unit) error {
		one := &job{work: work, done: make(chan error, 1)}
		jobs <- one
		return <-one.done
	}
}

func gather(first *job, jobs chan *job) []*job {
	batch, late := []*job{first}, time.After(linger)
	for len(batch) < batchMax {
		select {
		case next := <-jobs:
			batch = append(batch, next)
		case <-late:
			return batch
		}
	}
	return batch
}

// commit runs each job in its own savepoint, so that a refusal undoes only itself.
func commit(database *sql.DB, batch []*job) error {
	return alone(database, func(tx *sql.Tx) error {
		for _, each := range batch {
			if _, err := tx.Exec("SAVEPOINT one"); err != nil {
				return err
			}
			if each.err = each.work(tx); each.err != nil {
				if _, err := tx.Exec("ROLLBACK TO one"); err != nil {
					return err
				}
			}
			if _, err := tx.Exec("RELEASE one"); err != nil {
				return err
			}
		}
		return nil
	})
}
