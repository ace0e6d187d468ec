# The end: visits_orig goes, and with it the way back.
class DropOriginalVisits < ActiveRecord::Migration[6.1]
  disable_ddl_transaction!

  def up
    execute "SET statement_timeout = 0"
    execute "CALL migrate_ext.complete('visits', drop_original => true)"
  end

  def down
    raise ActiveRecord::IrreversibleMigration
  end
end
